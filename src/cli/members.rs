//! `wxgate members list|show|set`.

use std::io::Write;

use clap::{ArgGroup, Subcommand};
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::ConfigFile;
use super::operator::{Operator, segment};
use super::table::{cell, table};
use crate::config::Config;

/// `wxgate members`.
#[derive(Debug, Subcommand)]
pub enum Members {
    /// List members, newest first, or search for some
    #[command(group(ArgGroup::new("which")))]
    List {
        /// Who has logged in with this app
        #[arg(long, group = "which")]
        app: Option<String>,
        /// Who has this role
        #[arg(long, group = "which")]
        role: Option<String>,
        /// Who is banned
        #[arg(long, group = "which")]
        banned: bool,
        /// Who has this openid
        #[arg(long, group = "which")]
        openid: Option<String>,
        /// Who has this unionid
        #[arg(long, group = "which")]
        unionid: Option<String>,
        /// Who has this phone number
        #[arg(long, group = "which")]
        phone: Option<String>,
        /// Whose nickname begins so
        #[arg(long, group = "which")]
        nickname: Option<String>,
        /// At most so many
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=500))]
        limit: u32,
        /// Where the page before ended, as it said
        #[arg(long)]
        after: Option<String>,
        /// As JSON
        #[arg(long)]
        json: bool,
        /// Whose gateway
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Show a member
    Show {
        /// The member id
        id: String,
        /// As JSON
        #[arg(long)]
        json: bool,
        /// Whose gateway
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Change a member: roles, nickname, ban
    ///
    /// In force at once, on every instance within a second. A ban ends all sessions of the member.
    #[command(group(ArgGroup::new("what").required(true).multiple(true)))]
    Set {
        /// The member id
        id: String,
        /// The roles, all of them, separated by commas; "" for none
        #[arg(long, group = "what")]
        roles: Option<String>,
        /// The nickname; "" for none
        #[arg(long, group = "what")]
        nickname: Option<String>,
        /// Address of the picture; "" for none
        #[arg(long, group = "what")]
        avatar_url: Option<String>,
        /// Let the member in no more, for this reason, which is shown to operators alone
        #[arg(long, group = "what", value_name = "REASON", num_args = 0..=1, default_missing_value = "")]
        ban: Option<String>,
        /// Let the member in again
        #[arg(long, group = "what", conflicts_with = "ban")]
        unban: bool,
        /// Answer with JSON
        #[arg(long)]
        json: bool,
        /// Whose gateway
        #[command(flatten)]
        config: ConfigFile,
    },
}

impl Members {
    /// Where its configuration is.
    pub fn config(&self) -> &ConfigFile {
        match self {
            Self::List { config, .. } | Self::Show { config, .. } | Self::Set { config, .. } => config,
        }
    }

    /// Does it.
    ///
    /// # Errors
    /// When no gateway answers, or it refuses.
    pub async fn run(&self, config: &Config, out: &mut dyn Write) -> anyhow::Result<()> {
        let operator = Operator::of(config)?;
        match self {
            Self::List { json, .. } => {
                let page = operator.get("/api/members", &self.query()).await?;
                if *json {
                    return Ok(writeln!(out, "{page:#}")?);
                }
                let rows: Vec<_> = page["members"].as_array().into_iter().flatten().map(row).collect();
                table(out, &["MEMBER", "APP", "OPENID", "NICKNAME", "ROLES", "BANNED", "LAST LOGIN"], &rows)?;
                if let Some(next) = page["next"].as_str() {
                    writeln!(out, "more: --after {next}")?;
                }
            }
            Self::Show { id, json, .. } => {
                let member = operator.get(&format!("/api/members/{}", segment(id)), &[]).await?;
                show(&member, *json, out)?;
            }
            Self::Set { id, json, .. } => {
                let path = format!("/api/members/{}", segment(id));
                let member = operator.call(Method::PUT, &path, &[], Some(&self.change())).await?;
                show(&member, *json, out)?;
            }
        }
        Ok(())
    }

    fn query(&self) -> Vec<(&'static str, String)> {
        let Self::List { app, role, banned, openid, unionid, phone, nickname, limit, after, .. } = self else {
            return Vec::new();
        };
        let given = [
            ("app", app),
            ("role", role),
            ("openid", openid),
            ("unionid", unionid),
            ("phone", phone),
            ("nickname", nickname),
            ("after", after),
        ];
        let given = given.into_iter().filter_map(|(name, value)| Some((name, value.clone()?)));
        let mut query = vec![("limit", limit.to_string())];
        query.extend(given);
        query.extend(banned.then(|| ("banned", "true".to_owned())));
        query
    }

    fn change(&self) -> Value {
        let mut change = Map::new();
        if let Self::Set { roles, nickname, avatar_url, ban, unban, .. } = self {
            let mut set = |name: &str, value: Option<Value>| change.extend(value.map(|value| (name.to_owned(), value)));
            let list = |roles: &String| roles.split(',').map(str::trim).filter(|role| !role.is_empty()).collect();
            set("roles", roles.as_ref().map(list));
            set("nickname", nickname.as_ref().map(|nickname| json!(nickname)));
            set("avatar_url", avatar_url.as_ref().map(|url| json!(url)));
            set("banned", if ban.is_some() { Some(json!(true)) } else { unban.then(|| json!(false)) });
            set("reason", ban.as_ref().map(|reason| json!(reason)));
        }
        Value::Object(change)
    }
}

fn row(member: &Value) -> Vec<String> {
    ["member_id", "appid", "openid", "nickname", "roles", "banned", "last_login_at"]
        .map(|name| cell(&member[name]))
        .into()
}

fn show(member: &Value, json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
    if json {
        return Ok(writeln!(out, "{member:#}")?);
    }
    let mut rows = Vec::new();
    for name in [
        "member_id",
        "unionid",
        "nickname",
        "avatar_url",
        "phone",
        "roles",
        "banned",
        "ban_reason",
        "created_at",
        "last_login_at",
        "sessions",
    ] {
        if !member[name].is_null() {
            rows.push(vec![name.to_owned(), cell(&member[name])]);
        }
    }
    for name in ["roles", "user_id"] {
        rows.push(vec![format!("hook {name}"), cell(&member["hook"][name])]);
    }
    for known in member["identities"].as_array().into_iter().flatten() {
        rows.push(vec!["identity".to_owned(), format!("{} {}", cell(&known["appid"]), cell(&known["openid"]))]);
    }
    Ok(table(out, &["NAME", "VALUE"], &rows)?)
}
