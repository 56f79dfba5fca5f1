//! `/exec`: commands, from their request to their end.

mod environment;
mod process;
mod signal;

use std::io;
use std::path::{Path, PathBuf};

use buildlet_proto::api::Execution;
use buildlet_proto::exec::ExecLevel;
use buildlet_proto::{ApiError, ExecRequest, ProcessState, RelPath};

pub(crate) use self::environment::{Environment, TMP, machine_variables};
use self::process::Command;

/// Starts a command. What keeps it from starting is its state, not an error: the client asked rightly.
pub(crate) fn start(work_dir: &Path, request: &ExecRequest) -> Result<Execution, ApiError> {
    let env = Environment::new(work_dir, &request.env, request.path.as_deref());
    let Some(program) = find(work_dir, request)? else {
        let command = &request.command;
        let why = format!("exec: {command:?}: executable file not found in $PATH");
        return Ok(not_started(why));
    };
    let dir = directory(work_dir, request, &program)?;
    let why = match std::fs::metadata(&dir) {
        Ok(metadata) if metadata.is_dir() => None,
        Ok(_) => Some("not a directory".to_owned()),
        Err(error) => Some(reason(&error)),
    };
    if let Some(why) = why {
        return Ok(not_started(format!("chdir {}: {why}", dir.display())));
    }
    let prefix = if request.debug {
        debug_line(&program, request, &env, &dir)
    } else {
        String::new()
    };
    let command = Command {
        program: &program,
        args: &request.args,
        env: env.with("PWD", &dir),
        dir: &dir,
    };
    match command.start(prefix) {
        Ok(execution) => Ok(execution),
        Err(error) => Ok(not_started(format!(
            "fork/exec {}: {}",
            program.display(),
            reason(&error)
        ))),
    }
}

fn not_started(why: String) -> Execution {
    Execution::new(tokio::io::empty(), async move {
        Ok(ProcessState::not_started(why))
    })
}

/// The program to run; `None` where `PATH` has none of the name.
fn find(work_dir: &Path, request: &ExecRequest) -> Result<Option<PathBuf>, ApiError> {
    let command = request.command.as_str();
    if command.starts_with('/') {
        return Ok(Some(PathBuf::from(command)));
    }
    let bare = !command.contains('/');
    let below = RelPath::new(command)
        .ok()
        .filter(|path| !path.is_root())
        .map(|path| work_dir.join(path.as_str()));
    match (request.level, below) {
        (ExecLevel::System, _) if bare => Ok(look_up(command)),
        (_, None) => Err(ApiError::bad_request(
            "invalid 'cmd' parameter: the path must stay below the work directory",
        )),
        // A bare name below the work directory is that file, where there is one.
        (_, Some(below)) if bare && !below.exists() => Ok(Some(look_up(command).unwrap_or(below))),
        (_, Some(below)) => Ok(Some(below)),
    }
}

/// Looks a name up in the buildlet's own `PATH`, as Go's buildlets do, and not in that of the request.
fn look_up(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join(name))
        .find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    file.is_file() && rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok()
}

/// Where the command runs: as asked; else, below the work directory, beside the program; else the work directory.
fn directory(work_dir: &Path, request: &ExecRequest, program: &Path) -> Result<PathBuf, ApiError> {
    let bogus = || ApiError::bad_request("bogus 'dir' parameter");
    match (request.dir.as_deref(), request.level) {
        (Some(dir), ExecLevel::System) if dir.starts_with('/') => Ok(PathBuf::from(dir)),
        (Some(dir), _) => {
            let dir = RelPath::new(dir).map_err(|_| bogus())?;
            Ok(if dir.is_root() {
                work_dir.to_owned()
            } else {
                work_dir.join(dir.as_str())
            })
        }
        (None, ExecLevel::WorkDir) if program.starts_with(work_dir) => {
            Ok(program.parent().unwrap_or(work_dir).to_owned())
        }
        (None, _) => Ok(work_dir.to_owned()),
    }
}

/// Go's line, with Go's quotes, which are Rust's for all but control characters.
fn debug_line(program: &Path, request: &ExecRequest, env: &Environment, dir: &Path) -> String {
    let quoted = |words: &mut dyn Iterator<Item = String>| {
        let words: Vec<_> = words.map(|word| format!("{word:?}")).collect();
        format!("[{}]", words.join(" "))
    };
    let program = program.display().to_string();
    let mut argv = std::iter::once(program.clone()).chain(request.args.iter().cloned());
    format!(
        ":: Running {program} with args {} and env {} in dir {}\n\n",
        quoted(&mut argv),
        quoted(&mut env.pairs()),
        dir.display()
    )
}

/// The system's reason as Go words it: without the number that Rust adds.
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    let first = letters.next().map(|first| first.to_ascii_lowercase());
    first.into_iter().chain(letters).collect()
}
