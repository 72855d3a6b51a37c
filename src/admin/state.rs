//! What is in force and how it fares: upstreams, routes, configuration, figures. Read only.

use std::sync::Arc;

use axum::extract::State;
use http::StatusCode;
use serde_json::{Value, json};

use crate::store::MemberFilter;

use super::members::answered;
use super::{Admin, Answer, json_answer};

/// Members are counted no further.
const MOST_COUNTED: u32 = 10_000;

/// `GET /api/upstreams`: each server, whether it is asked, and what it has done.
pub(super) async fn upstreams(State(admin): State<Arc<Admin>>) -> Answer {
    let snapshot = admin.gateway.current();
    let upstreams: Vec<Value> = snapshot
        .upstreams()
        .iter()
        .map(|upstream| {
            let servers = upstream.backends().iter().enumerate().map(|(index, backend)| {
                let counters = backend.counters();
                json!({
                    "server": backend.authority().as_str(),
                    "up": upstream.is_up(index),
                    "in_flight": counters.in_flight,
                    "requests": counters.requests,
                    "failures": counters.failures,
                    "connects": counters.connects,
                    "ejections": counters.ejections,
                })
            });
            json!({ "name": upstream.name(), "servers": servers.collect::<Vec<_>>() })
        })
        .collect();
    json_answer(StatusCode::OK, &json!({ "upstreams": upstreams }))
}

/// `GET /api/config`: the file in force, with secrets hidden.
pub(super) async fn config(State(admin): State<Arc<Admin>>) -> Answer {
    let snapshot = admin.gateway.current();
    let document = json!({
        "file": snapshot.config.source,
        "generation": snapshot.generation,
        "config": snapshot.config.shown.json(),
    });
    json_answer(StatusCode::OK, &document)
}

/// `GET /api/stats`: figures for a page that people look at; everything else is in `/metrics`.
pub(super) async fn stats(State(admin): State<Arc<Admin>>) -> Answer {
    let kept = admin.gateway.kept();
    let read = async {
        let members = kept.members.count(&MemberFilter::All, MOST_COUNTED).await?;
        let banned = kept.members.count(&MemberFilter::Banned, MOST_COUNTED).await?;
        Ok(json!({
            "version": env!("CARGO_PKG_VERSION"),
            "now": kept.clock.now().to_string(),
            "generation": admin.gateway.current().generation,
            "draining": admin.gateway.is_leaving(),
            "members": members,
            "members_is_exact": members < MOST_COUNTED,
            "banned": banned,
            "sockets": kept.sockets.count(),
            "revocations": kept.revocations.len(),
            "logins": kept.metrics.logins.get(),
            "refreshes": kept.metrics.refreshes.get(),
            "logouts": kept.metrics.logouts.get(),
        }))
    };
    answered(read.await)
}
