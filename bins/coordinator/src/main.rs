//! The coordinator. What it does is in [`coordinator::app`].

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use coordinator::app::{self, Args};

fn main() -> ExitCode {
    // The machines of the demo are this program, and so is what watches over their commands.
    if let Some(ended) = buildlet::supervise() {
        return ended;
    }
    let args = Args::parse();
    app::start_tracing(&args);
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return fail(2, &error.into()),
    };
    let result = runtime.block_on(app::run(args, app::interrupted(), &mut std::io::stdout()));
    // A read of standard input that nobody waits for any more must not keep the program.
    runtime.shutdown_timeout(Duration::ZERO);
    match result {
        Ok(code) => code,
        Err(error) => fail(1, &error),
    }
}

#[expect(
    clippy::print_stderr,
    reason = "the one place where the program says why it failed"
)]
fn fail(code: u8, error: &anyhow::Error) -> ExitCode {
    eprintln!("coordinator: {error:#}");
    ExitCode::from(code)
}
