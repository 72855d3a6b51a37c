//! The schemas of [`openapi`](super::openapi): what requests and answers look like.

use serde_json::{Value, json};

use crate::problem::Code;

/// All of them, by name.
#[allow(clippy::too_many_lines)] // a table
pub(super) fn schemas() -> Value {
    let text = json!({ "type": "string" });
    let opaque = json!({ "type": "string", "minLength": 1, "maxLength": 128 });
    let time = json!({ "type": "string", "format": "date-time" });
    let seconds = json!({ "type": "integer", "minimum": 0 });
    let sealed =
        json!({ "type": "string", "description": "Base64, as the client API gave it; percent-encoded is taken, too." });
    let login_code = json!({ "type": "string", "minLength": 1, "maxLength": 512,
        "description": "A fresh code of wx.login: it is exchanged first, and opens no session." });
    let codes: Vec<&str> = Code::ALL.iter().map(|code| code.name()).collect();
    json!({
        "Problem": {
            "description": "RFC 9457.",
            "type": "object",
            "required": ["type", "title", "status", "detail", "instance", "code"],
            "properties": {
                "type": { "type": "string", "pattern": "^urn:wxgate:problem:" },
                "title": text, "detail": text, "instance": text,
                "status": { "type": "integer", "minimum": 400, "maximum": 599 },
                "code": { "enum": codes },
            },
        },
        "Login": {
            "type": "object",
            "description": "`code` or `ticket`; of the optional members whole pairs.",
            "properties": {
                "code": { "type": "string", "minLength": 1, "maxLength": 512, "description": "Of wx.login." },
                "ticket": { "type": "string", "description": "Of a web login." },
                "appid": { "type": "string", "description": "Needed where several apps are served." },
                "rawData": text, "signature": text, "encryptedData": sealed, "iv": sealed,
            },
        },
        "Refresh": {
            "type": "object", "required": ["refresh_token"],
            "properties": { "refresh_token": { "type": "string", "minLength": 1 } },
        },
        "Logout": {
            "type": "object",
            "properties": {
                "refresh_token": { "type": "string", "description": "In place of the access token." },
                "all": { "type": "boolean", "description": "All sessions of the member in this app." },
            },
        },
        "Revoke": {
            "type": "object", "required": ["token"],
            "properties": { "token": text, "token_type_hint": text },
        },
        "Update": {
            "type": "object",
            "properties": {
                "nickname": { "type": "string", "maxLength": 64 },
                "avatar_url": { "type": "string", "maxLength": 1024, "description": "An http or https URL, or empty." },
            },
        },
        "LoginCode": { "type": "object", "properties": { "login_code": login_code } },
        "UserData": {
            "type": "object", "required": ["rawData", "signature", "encryptedData", "iv"],
            "properties": {
                "rawData": text, "signature": text, "encryptedData": sealed, "iv": sealed, "login_code": login_code,
            },
        },
        "EncryptedData": {
            "type": "object", "required": ["encryptedData", "iv"],
            "properties": { "encryptedData": sealed, "iv": sealed, "login_code": login_code },
        },
        "PhoneData": {
            "type": "object",
            "description": "`code` of the phone button, or `encryptedData` and `iv`.",
            "properties": { "code": text, "encryptedData": sealed, "iv": sealed, "login_code": login_code },
        },
        "Push": { "type": "string", "description": "XML or JSON, as the app's settings at WeChat say." },
        "TokenAnswer": {
            "type": "object",
            "required": ["access_token", "token_type", "expires_in", "refresh_token", "refresh_expires_in", "appid", "openid",
                "member_id", "is_new", "member"],
            "properties": {
                "access_token": text, "token_type": { "const": "Bearer" }, "expires_in": seconds, "refresh_token": text,
                "refresh_expires_in": seconds, "appid": opaque, "openid": opaque, "unionid": opaque, "member_id": opaque,
                "is_new": { "type": "boolean", "description": "Whether this was the first login of the member." },
                "member": { "$ref": "#/components/schemas/Member" },
            },
        },
        "Member": {
            "type": "object",
            "required": ["member_id", "appid", "openid", "nickname", "avatar_url", "phone", "roles", "created_at",
                "last_login_at"],
            "properties": {
                "member_id": opaque, "appid": opaque, "openid": opaque, "unionid": opaque, "nickname": text,
                "avatar_url": text, "phone": { "type": "string", "description": "With its middle hidden; empty until known." },
                "roles": { "type": "array", "items": opaque }, "created_at": time, "last_login_at": time,
            },
        },
        "Me": {
            "type": "object", "required": ["member", "session"],
            "properties": {
                "member": { "$ref": "#/components/schemas/Member" },
                "session": {
                    "type": "object", "required": ["id", "created_at", "expires_at"],
                    "properties": { "id": opaque, "created_at": time, "expires_at": time },
                },
                "subscribed": { "type": "boolean", "description": "Of an official account: whether the person follows it." },
            },
        },
        "Phone": {
            "type": "object", "required": ["phoneNumber", "purePhoneNumber", "countryCode"],
            "properties": { "phoneNumber": text, "purePhoneNumber": text, "countryCode": text },
        },
        "OpenData": { "type": "object", "description": "What WeChat encrypted." },
        "Check": { "type": "object", "required": ["valid"], "properties": { "valid": { "type": "boolean" } } },
        "Jwks": {
            "type": "object", "required": ["keys"],
            "properties": { "keys": { "type": "array", "items": { "type": "object", "required": ["kty", "kid", "alg", "use"] } } },
        },
        "Metadata": {
            "type": "object", "required": ["issuer", "jwks_uri", "revocation_endpoint", "response_types_supported"],
            "properties": {
                "issuer": text, "jwks_uri": text, "revocation_endpoint": text,
                "response_types_supported": { "type": "array" },
            },
        },
    })
}
