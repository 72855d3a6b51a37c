//! `wxgate sessions list|revoke`.

use std::io::Write;

use clap::{ArgGroup, Subcommand};
use reqwest::Method;
use serde_json::{Value, json};

use super::ConfigFile;
use super::operator::Operator;
use super::table::{cell, table};
use crate::config::Config;

/// `wxgate sessions`.
#[derive(Debug, Subcommand)]
pub enum Sessions {
    /// List the live sessions of a member or of an app, newest first
    #[command(group(ArgGroup::new("of").required(true)))]
    List {
        /// Of this member
        #[arg(long, group = "of")]
        member: Option<String>,
        /// Of this app
        #[arg(long, group = "of")]
        app: Option<String>,
        /// At most so many
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=500))]
        limit: u32,
        /// After this session: the last one of the page before
        #[arg(long)]
        after: Option<String>,
        /// As JSON
        #[arg(long)]
        json: bool,
        /// Whose gateway
        #[command(flatten)]
        config: ConfigFile,
    },
    /// End a session, or all of a member or of an app
    ///
    /// In force at once, on every instance within a second. Open sockets are closed.
    #[command(group(ArgGroup::new("of").required(true)))]
    Revoke {
        /// This session
        #[arg(group = "of")]
        session: Option<String>,
        /// All of this member, in all apps
        #[arg(long, group = "of")]
        member: Option<String>,
        /// All of this app
        #[arg(long, group = "of")]
        app: Option<String>,
        /// Whose gateway
        #[command(flatten)]
        config: ConfigFile,
    },
}

impl Sessions {
    /// Where its configuration is.
    pub fn config(&self) -> &ConfigFile {
        match self {
            Self::List { config, .. } | Self::Revoke { config, .. } => config,
        }
    }

    /// Does it.
    ///
    /// # Errors
    /// When no gateway answers, or it refuses.
    pub async fn run(&self, config: &Config, out: &mut dyn Write) -> anyhow::Result<()> {
        let operator = Operator::of(config)?;
        match self {
            Self::List { member, app, limit, after, json, .. } => {
                let mut query = vec![("limit", limit.to_string())];
                let given = [("member", member), ("app", app), ("after", after)];
                query.extend(given.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))));
                let page = operator.get("/api/sessions", &query).await?;
                if *json {
                    return Ok(writeln!(out, "{page:#}")?);
                }
                let rows: Vec<_> = page["sessions"].as_array().into_iter().flatten().map(row).collect();
                table(out, &["SESSION", "MEMBER", "APP", "CREATED", "EXPIRES"], &rows)?;
                if let Some(next) = page["next"].as_str() {
                    writeln!(out, "more: --after {next}")?;
                }
            }
            Self::Revoke { session, member, app, .. } => {
                let of = match (session, member, app) {
                    (Some(id), ..) => json!({ "session": id }),
                    (_, Some(id), _) => json!({ "member": id }),
                    (.., app) => json!({ "app": app }),
                };
                let answer = operator.call(Method::POST, "/api/sessions/revoke", &[], Some(&of)).await?;
                writeln!(out, "ended: {}", answer["ended"])?;
            }
        }
        Ok(())
    }
}

fn row(session: &Value) -> Vec<String> {
    ["session_id", "member_id", "appid", "created_at", "expires_at"].map(|name| cell(&session[name])).into()
}
