//! `corelane upgrade`: asks a running process to hand its sockets to a new one, and says how that
//! ended.

use std::fs::File;
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use crate::admin::client;
use crate::cli::{EXIT_USAGE, Output};
use crate::limits;

/// Exit code of an upgrade that failed: the old process goes on.
const EXIT_FAILED: u8 = 1;

#[derive(Args, Clone, Debug)]
pub struct Upgrade {
    /// Where the running process serves its admin API
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9091")]
    pub admin: SocketAddr,
    /// File that holds a token with the role admin
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

pub fn upgrade(asked: &Upgrade) -> Output {
    let token = match asked.token_file.as_deref().map(token).transpose() {
        Ok(token) => token,
        Err(error) => return Output { err: error, code: EXIT_USAGE, ..Output::default() },
    };
    // The process answers when the new one serves, or has failed to.
    let patience = limits::UPGRADE_READY_TIMEOUT + limits::ADMIN_TIMEOUT + Duration::from_secs(5);
    let reply = client::post(asked.admin, "/admin/upgrade", token.as_deref(), patience);
    let failed = |why: &str| Output {
        err: format!("the upgrade has failed: {why}\n"),
        code: EXIT_FAILED,
        ..Output::default()
    };
    let reply = match reply {
        Ok(reply) => reply,
        Err(error) => return failed(&error),
    };
    let body: Value = serde_json::from_str(&reply.body).unwrap_or_default();
    if reply.status != 200 {
        let message = body["error"]["message"].as_str().unwrap_or("no reason was given");
        return failed(&format!("{message} (status {})", reply.status));
    }
    let pid = &body["pid"];
    let out = format!("process {pid} serves from now on, the one before it drains\n");
    let warnings = body["warnings"].as_array().into_iter().flatten();
    let warned = warnings.filter_map(|warning| Some(format!("warning: {}\n", warning.as_str()?)));
    Output { out, err: warned.collect(), ..Output::default() }
}

fn token(file: &Path) -> Result<String, String> {
    let name = file.display();
    let mut text = String::new();
    let most = limits::ADMIN_TOKEN_BYTES_MAX as u64;
    File::open(file)
        .and_then(|file| file.take(most).read_to_string(&mut text))
        .map_err(|error| format!("cannot read the token in {name}: {error}\n"))?;
    let token = text.trim();
    // It goes into a header line.
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!("{name}: expected one line with a token, of visible ASCII\n"));
    }
    Ok(token.to_owned())
}
