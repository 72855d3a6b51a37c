//! The guard over scripted streams, over paused time, and in front of hyper.

mod mutation;
mod passing;
mod serving;
mod support;
mod time;
