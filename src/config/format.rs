//! `[token] format`.

use schemars::JsonSchema;
use serde::Deserialize;

/// What a new access token is; those of the other kind stay good.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TokenFormat {
    /// A signed JWT.
    #[default]
    Jwt,
    /// A handle, which the store knows.
    Opaque,
}
