//! A route's `allow` and `deny` and the client's address → go on, or 403.
//!
//! Asked as soon as the route is known: who may not use it costs no signature and no limit, and learns nothing about
//! tokens. The address is the true client's, as `client_addr` has found it, never what an untrusted peer says.

use crate::problem::{Code, Problem};

use super::exchange::Exchange;
use super::route::Route;

/// Whether the client's address may use this route.
///
/// # Errors
/// `forbidden`.
pub fn admit(route: &Route, exchange: &Exchange) -> Result<(), Problem> {
    let networks = &route.policy.networks;
    match networks.is_empty() || networks.admit(exchange.client()) {
        true => Ok(()),
        false => Err(Problem::new(Code::Forbidden, "This route is not open to clients of this address.")),
    }
}
