//! The commands of `wxgate`, one file each. Nothing else prints.

pub mod backup;
pub mod check;
pub mod demo;
pub mod diff;
pub mod explain;
pub mod keys;
pub mod members;
pub mod operator;
pub mod reload;
pub mod sample;
pub mod schema;
pub mod serve;
pub mod sessions;
pub mod simulate;
pub mod table;
mod takeover;
pub mod token;

use std::io::{Write, stderr, stdin, stdout};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, Subcommand};

use crate::clock::Clock;
use crate::config::{self, Config, Environment};
use crate::server::inherited::Inherited;
use crate::telemetry::{self, LogWriter};

/// `EX_USAGE` of sysexits.h: the command line or the configuration is wrong.
pub const USAGE: u8 = 64;

/// Threads of the control runtime: endpoints, stores, WeChat, operators. They mostly wait; the request path has its own.
const CONTROL_THREADS: usize = 2;

/// How long the end of the process may wait for the last lines of the log: standard error may be a pipe that nobody reads.
const LAST_LINES: Duration = Duration::from_secs(1);

/// The gateway that a WeChat mini program puts in front of its services.
///
/// It terminates the WeChat login, mints and checks tokens, and forwards requests to your services with the caller's
/// openid in the header X-WX-OPENID.
#[derive(Debug, Parser)]
#[command(name = "wxgate", version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway
    ///
    /// Stops on SIGTERM or ctrl-c: it takes no new connections, finishes what is in flight and exits 0. Reloads its file
    /// on SIGHUP, on save, and on `wxgate reload`. Exits 64 when the configuration has faults (all are printed), 1 when
    /// it cannot start.
    Serve {
        #[command(flatten)]
        config: ConfigFile,
        /// Take the place of the gateway that runs, in place of giving up
        ///
        /// For a new binary, or a change that needs a restart, without a refused connection. The running gateway hands its listening
        /// sockets over and is told to leave; requests in flight finish there. Where the sockets come from a supervisor
        /// (LISTEN_FDS), it waits until that one has stopped the old process. Without a running gateway it just starts.
        #[arg(long)]
        takeover: bool,
    },
    /// Try it: gateway, WeChat simulator and a sample service in one process
    ///
    /// Needs no account, no network and no configuration. Prints lines for sh and curl that work as they stand.
    Demo {
        /// Address of the gateway
        #[arg(long, default_value = "127.0.0.1:8080")]
        listen: SocketAddr,
        /// Address of the operators' listener
        #[arg(long, default_value = "127.0.0.1:9090")]
        admin: SocketAddr,
        /// Address of the services' listener (this version does not open it yet)
        #[arg(long, default_value = "127.0.0.1:9080")]
        internal: SocketAddr,
        /// Folder for database and keys; a temporary one that is deleted at the end, if not given
        #[arg(long)]
        data: Option<PathBuf>,
    },
    /// Check a configuration without opening a socket
    ///
    /// Prints every fault at once, each with file, line, key, what is wrong and what to write. Exits 0 or 64.
    Check(ConfigFile),
    /// Have the running gateway read its configuration again
    ///
    /// Prints what changed, or the faults (exit 64); then nothing has changed. Reads the admin token beside the keys.
    Reload(ConfigFile),
    /// Say what would be done with a request, and why
    ///
    /// Which route it takes and why the others do not, whether it would be let in, which headers are removed and added, and
    /// where it would go. Runs the very steps that requests pass, with nothing behind them; opens no socket.
    Explain {
        #[command(flatten)]
        asked: explain::Asked,
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Say what a change of the configuration does
    ///
    /// One line for each change, marked as tighter, looser or neutral. Opens no socket. Exits 0, or 64 when one of the two
    /// has faults.
    Diff {
        /// The configuration as it was
        old: PathBuf,
        /// The configuration as it is to be
        new: PathBuf,
    },
    /// Run the WeChat simulator alone
    Simulate {
        /// Address of the simulator
        #[arg(long, default_value = "127.0.0.1:9100")]
        listen: SocketAddr,
    },
    /// Print the JSON Schema of gateway.toml, for editors
    Schema,
    /// Look at the live sessions of the running gateway, and end them
    #[command(subcommand)]
    Sessions(sessions::Sessions),
    /// Look at the members of the running gateway, and change them
    #[command(subcommand)]
    Members(members::Members),
    /// Copy database and keys of the running gateway into a new folder
    ///
    /// One consistent copy, made while the gateway goes on serving. To restore it, stop the gateway, put the files where the
    /// configuration names them, and start it. The copy is as secret as the keys.
    Backup {
        /// The folder; it is made, or must be empty
        dir: PathBuf,
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Signing keys: list, rotate, import
    #[command(subcommand)]
    Keys(Keys),
    /// Tokens
    #[command(subcommand)]
    Token(Token),
}

#[derive(Debug, Subcommand)]
enum Token {
    /// Print the admin token, which the admin listener and its page ask for
    ///
    /// It is in the file admin.token beside the keys, or follows from the master key where the keys are in the store.
    Admin(ConfigFile),
    /// Say what a token is and whether the running gateway takes it; exit 0 if it does, else 1
    Inspect {
        /// The token, or - to read it from standard input
        #[arg(allow_hyphen_values = true)]
        token: String,
        #[command(flatten)]
        config: ConfigFile,
    },
}

#[derive(Debug, Subcommand)]
enum Keys {
    /// List the keys of the running gateway
    List(ConfigFile),
    /// Have a new signing key take over
    ///
    /// It is published for ten minutes before it signs, so that services that verify tokens know it by then. Nobody is
    /// logged out.
    Rotate {
        /// In five seconds, because the old key was stolen; who cached the public keys refuses new tokens for some minutes
        #[arg(long)]
        now: bool,
        /// The key that seals WeChat's session keys in the store, in place of one that signs; what it has sealed is sealed anew, little by little
        #[arg(long)]
        sealing: bool,
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Bring in an existing key; it becomes the active one of its algorithm
    ///
    /// Needs no running gateway; running ones take the key up within a second. With --from, brings all keys of a folder into the
    /// store instead, so that nobody is signed out when [token] keys becomes "store"; stop the gateways before.
    Import {
        /// A private key as PEM PKCS#8, or with --hs256 a file that holds a secret of at least 32 bytes
        #[arg(required_unless_present = "from")]
        file: Option<PathBuf>,
        /// The file is a raw secret for HS256
        #[arg(long, requires = "file")]
        hs256: bool,
        /// A folder of keys, all of which go into the store
        #[arg(long, value_name = "FOLDER", conflicts_with = "file")]
        from: Option<PathBuf>,
        /// In the place of the keys that are in the store already: whoever logged in with those is signed out
        #[arg(long, requires = "from")]
        replace: bool,
        #[command(flatten)]
        config: ConfigFile,
    },
}

/// Which configuration.
#[derive(Debug, clap::Args)]
pub struct ConfigFile {
    /// The configuration
    #[arg(long, default_value = "gateway.toml")]
    config: PathBuf,
}

/// Runs the command; returns the exit status. 0: done. 64: wrong usage or configuration. 1: it could not be done.
pub fn run(cli: Cli) -> u8 {
    forbid_core_dumps();
    match dispatch(cli.command) {
        Ok(status) => status,
        Err(error) => {
            let _ = writeln!(stderr(), "wxgate: {}", why(&error));
            1
        }
    }
}

/// The error and its causes, from the outside to the inside, each said once: many say their cause in their own words already.
fn why(error: &anyhow::Error) -> String {
    let mut said = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if !said.contains(&cause) {
            said.push_str(if said.is_empty() { "" } else { ": " });
            said.push_str(&cause);
        }
    }
    said
}

/// Keys, tokens and session_keys are in memory, so the memory of a process that crashes is written nowhere. One byte is too little for a
/// file, and the one limit at which nothing is handed to a program either (`coredump.c` of Linux).
fn forbid_core_dumps() {
    let highest = rlimit::getrlimit(rlimit::Resource::CORE).map_or(0, |(_, hard)| hard.min(1));
    if let Err(error) = rlimit::setrlimit(rlimit::Resource::CORE, highest, highest) {
        let _ = writeln!(
            stderr(),
            "wxgate: a crash may write memory to disk, since core dumps cannot be switched off: {error}"
        );
    }
}

fn dispatch(command: Command) -> anyhow::Result<u8> {
    match command {
        Command::Serve { config, takeover } => with_config(&config.config, &Environment::process(), |config| {
            // Before there are threads: the environment is cleared of what was passed in it.
            let sockets = Inherited::from_env().context("a socket that was passed (LISTEN_FDS) cannot be used")?;
            let log = log();
            let ended = on_control(serve::run(config, log.clone(), sockets, takeover));
            // The last lines say how it ended.
            log.written(LAST_LINES);
            ended?;
            Ok(0)
        }),
        Command::Demo { listen, admin, internal, data } => {
            let log = log();
            let options = demo::Options { listen, admin, internal, data };
            on_control(demo::run(&options, log, &mut stdout()))?;
            Ok(0)
        }
        Command::Check(ConfigFile { config }) => {
            Ok(check::run(&config, &Environment::process(), &mut stdout(), &mut stderr())?)
        }
        Command::Reload(ConfigFile { config }) => with_config(&config, &Environment::incomplete(), |config| {
            on_control(reload::run(&config, &mut stdout(), &mut stderr()))
        }),
        Command::Explain { asked, config } => with_config(&config.config, &Environment::incomplete(), |config| {
            on_control(async move { explain::run(&config, &asked, &mut stdout()).await })
        }),
        Command::Diff { old, new } => {
            Ok(diff::run(&old, &new, &Environment::incomplete(), &mut stdout(), &mut stderr())?)
        }
        Command::Simulate { listen } => {
            on_control(async { Ok(simulate::run(listen, &mut stdout()).await?) })?;
            Ok(0)
        }
        Command::Schema => {
            schema::run(&mut stdout())?;
            Ok(0)
        }
        Command::Keys(Keys::List(ConfigFile { config })) => {
            with_config(&config, &Environment::incomplete(), |config| {
                on_control(keys::list(&config, &mut stdout())).map(|()| 0)
            })
        }
        Command::Keys(Keys::Rotate { now, sealing, config }) => {
            with_config(&config.config, &Environment::incomplete(), |config| {
                on_control(keys::rotate(&config, now, sealing, &mut stdout())).map(|()| 0)
            })
        }
        Command::Token(Token::Admin(ConfigFile { config })) => {
            with_config(&config, &Environment::incomplete(), |config| token::admin(&config, &mut stdout()).map(|()| 0))
        }
        Command::Token(Token::Inspect { token, config }) => {
            with_config(&config.config, &Environment::incomplete(), |config| {
                on_control(token::inspect(&config, &token, &mut stdin(), &mut stdout()))
            })
        }
        Command::Sessions(command) => with_config(&command.config().config, &Environment::incomplete(), |config| {
            on_control(async { command.run(&config, &mut stdout()).await.map(|()| 0) })
        }),
        Command::Members(command) => with_config(&command.config().config, &Environment::incomplete(), |config| {
            on_control(async { command.run(&config, &mut stdout()).await.map(|()| 0) })
        }),
        Command::Backup { dir, config } => with_config(&config.config, &Environment::incomplete(), |config| {
            on_control(async { backup::run(&config, &dir, &mut stdout()).await.map(|()| 0) })
        }),
        Command::Keys(Keys::Import { file, hs256, from, replace, config }) => {
            with_config(&config.config, &Environment::incomplete(), |config| {
                on_control(async {
                    let (clock, out) = (Clock::system(), &mut stdout());
                    if let Some(folder) = from {
                        keys::move_in(&config, &folder, replace, &clock, out).await?;
                    }
                    if let Some(file) = file {
                        keys::import(&config, &file, hs256, &clock, out).await?;
                    }
                    Ok(0)
                })
            })
        }
    }
}

/// Loads the configuration, or prints its faults. Commands that only need to know where things are take an incomplete
/// environment: an operator's shell does not have the service's secrets.
fn with_config(
    path: &Path,
    environment: &Environment,
    work: impl FnOnce(Config) -> anyhow::Result<u8>,
) -> anyhow::Result<u8> {
    match config::read(path).and_then(|text| config::parse(text, path, environment)) {
        Ok(config) => work(config),
        Err(faults) => {
            writeln!(stderr(), "{faults}")?;
            Ok(USAGE)
        }
    }
}

/// How long the end may wait for tasks to be dropped. They own the store, which must be closed before the process ends: a log
/// that is left behind is not lost, but the next start has to work through it.
const LAST_TASKS: Duration = Duration::from_secs(5);

/// Runs `work` on the control runtime. What still blocks when it is done (a name that is being resolved) is not waited for
/// for ever.
fn on_control<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .thread_name("control")
        .enable_all()
        .build()?;
    let done = runtime.block_on(work);
    runtime.shutdown_timeout(LAST_TASKS);
    done
}

/// The log on standard error; `WXGATE_LOG` sets its level in the form of `RUST_LOG`.
fn log() -> LogWriter {
    let log = LogWriter::stderr();
    let filter = Environment::process().get("WXGATE_LOG").unwrap_or_else(|_| "info".to_owned());
    telemetry::init(&log, &filter);
    // The message of a panic may hold anything; where it was is enough to find it.
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, "a panic was caught");
    }));
    log
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_an_error_says_of_its_cause_is_not_said_again() {
        let io = || std::io::Error::other("the disk is full");
        let key = anyhow::Error::from(io()).context("sealing key k: the disk is full").context("keys");
        assert_eq!(why(&key), "keys: sealing key k: the disk is full");
        assert_eq!(why(&anyhow::Error::from(io()).context("audit.log")), "audit.log: the disk is full");
    }
}
