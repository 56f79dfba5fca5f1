//! Commands, from their request to what is started.

mod environment;

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use buildlet_proto::exec::ExecLevel;
use buildlet_proto::{ApiError, ExecRequest, RelPath};

pub(crate) use self::environment::{Environment, TMP, machine_variables};
use crate::supervisor::Spec;

/// A command that is ready to start, and what its output begins with.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) spec: Spec,
    pub(crate) prefix: String,
}

/// Why a command cannot start: its state, not an error, as the client asked rightly.
pub(crate) type NotStarted = String;

/// Finds the program, its directory and its environment.
pub(crate) fn prepare(
    work_dir: &Path,
    request: &ExecRequest,
) -> Result<Result<Prepared, NotStarted>, ApiError> {
    let env = Environment::new(work_dir, &request.env, request.path.as_deref());
    let Some(program) = find(work_dir, request)? else {
        let command = &request.command;
        let why = format!("exec: {command:?}: executable file not found in $PATH");
        return Ok(Err(why));
    };
    let dir = directory(work_dir, request, &program)?;
    let why = match std::fs::metadata(&dir) {
        Ok(metadata) if metadata.is_dir() => None,
        Ok(_) => Some("not a directory".to_owned()),
        Err(error) => Some(reason(&error)),
    };
    if let Some(why) = why {
        return Ok(Err(format!("chdir {}: {why}", dir.display())));
    }
    let env = env.with("PWD", &dir);
    let prefix = if request.debug {
        debug_line(&program, request, &env, &dir)
    } else {
        String::new()
    };
    let spec = Spec {
        program,
        args: request.args.iter().map(OsString::from).collect(),
        env: env.into_variables(),
        dir,
        on_terminal: false,
    };
    Ok(Ok(Prepared { spec, prefix }))
}

/// How Go says that the system did not start a program.
pub(crate) fn refused(program: &Path, error: &io::Error) -> NotStarted {
    format!("fork/exec {}: {}", program.display(), reason(error))
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
