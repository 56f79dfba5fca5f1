//! An SFTP server on standard input and output, for clients that bring the connection themselves.
//!
//! ```text
//! sftp -D 'target/debug/examples/sftp_server'
//! ```

use std::process::ExitCode;
use std::sync::Arc;

use sshbridge::sftp::{LocalFiles, serve};

#[tokio::main]
async fn main() -> ExitCode {
    let home = std::env::var_os("HOME").map(Into::into);
    let files = match LocalFiles::new(".", home) {
        Ok(files) => Arc::new(files),
        Err(_) => return ExitCode::FAILURE,
    };
    match serve(files, tokio::io::stdin(), tokio::io::stdout()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
