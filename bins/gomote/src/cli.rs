//! Commands, flags and help.

use std::ffi::OsString;
use std::path::PathBuf;

use buildlet_proto::jobs::{JobId, Signal};
use clap::{Subcommand, ValueEnum};

use crate::config::Flags;

/// What gomote is told to do.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, after_long_help = LONG_HELP)]
pub struct Args {
    #[command(flatten)]
    pub(crate) flags: Flags,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show a job from its beginning to its end, give it standard input, and exit as it does
    #[command(
        after_help = "Example:\n  gomote attach INST c1vx7k3m9q\n\nCtrl-C ends the showing; the job goes on."
    )]
    Attach(JobTarget),
    /// Lease a machine, and print the instance's name
    #[command(
        after_help = "Example:\n  gomote create openbsd-amd64-60\n\n`gomote types` lists what there is."
    )]
    Create(Create),
    /// End a lease: what runs is killed, and the machine is emptied
    #[command(after_help = "Example:\n  gomote destroy user-al-demo-linux-0")]
    Destroy(Target),
    /// Copy a directory of an instance, as a tar.gz
    #[command(
        after_help = "Examples:\n  gomote gettar INST >all.tar.gz\n  gomote gettar --dir go/bin -o bin.tar.gz INST"
    )]
    Gettar(Gettar),
    /// List the jobs of an instance: commands that run, and those that have ended and are kept
    #[command(after_help = "Examples:\n  gomote jobs INST\n  gomote jobs -o json INST")]
    Jobs(Jobs),
    /// Kill a job, with every process that it has started
    #[command(
        after_help = "Examples:\n  gomote kill INST c1vx7k3m9q\n  gomote kill -s INT INST c1vx7k3m9q"
    )]
    Kill(Kill),
    /// List your instances
    #[command(after_help = "Examples:\n  gomote list\n  gomote list -o json")]
    List(List),
    /// Print what a job has written so far
    #[command(
        after_help = "Examples:\n  gomote logs INST c1vx7k3m9q\n  gomote logs -f INST c1vx7k3m9q"
    )]
    Logs(Logs),
    /// List the files of an instance
    #[command(after_help = "Examples:\n  gomote ls INST\n  gomote ls -R -d --skip go/pkg INST go")]
    Ls(Ls),
    /// Check that an instance answers; this renews its lease
    #[command(after_help = "Example:\n  gomote ping INST")]
    Ping(Target),
    /// Copy a file to an instance
    #[command(
        after_help = "Examples:\n  gomote put INST prog.c\n  gomote put --mode 755 INST - bin/tool <tool"
    )]
    Put(Put),
    /// Unpack a tar.gz, or copy a directory, to an instance
    #[command(
        after_help = "Examples:\n  gomote puttar INST src.tar.gz\n  gomote puttar --dir src INST ."
    )]
    Puttar(Puttar),
    /// Remove files and directories of an instance
    #[command(
        after_help = "Examples:\n  gomote rm INST src/a.o src/b.o\n  gomote rm INST .   # everything"
    )]
    Rm(Rm),
    /// Run a command on an instance, and exit as it does
    #[command(
        after_help = "Examples:\n  gomote run INST uname -a\n  gomote run --dir src -e CC=clang INST make -j4\n  \
        gomote run INST ./configure --prefix=/usr\n\nA command without a slash is found in the machine's PATH; one with \
        a slash is a file below the work directory, or, where it begins with one, of the machine. Output streams as it \
        comes. Standard input is passed on unless it is a terminal; in a loop over lines of a file say --no-stdin. A \
        connection that is cut is made again, and the output goes on where it was. Ctrl-C kills the command and all that \
        it has started."
    )]
    Run(Run),
    /// Open an SSH session on an instance, or run a command over SSH
    #[command(
        after_help = "Examples:\n  gomote ssh INST\n  gomote ssh INST -- tail -f /var/log/messages\n  gomote ssh -n INST   # \
        prints the command for scripts, scp and rsync"
    )]
    Ssh(Ssh),
    /// Print a configuration with which ssh, scp, rsync and editors know your instances by their names
    #[command(
        after_help = "Examples:\n  gomote ssh-config >~/.ssh/gomote      # then `Include gomote` at the top of ~/.ssh/config\n  \
        gomote ssh-config INST >config && scp -F config INST:log ."
    )]
    SshConfig(SshConfig),
    /// List what can be leased, and how busy it is
    #[command(after_help = "Examples:\n  gomote types\n  gomote types -o json")]
    Types(Types),
    /// Wait for a job, and exit as it does
    #[command(after_help = "Example:\n  gomote wait INST $(gomote run --detach INST make)")]
    Wait(JobTarget),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Target {
    /// The instance; a beginning or an end that only one of yours has is enough
    #[arg(value_name = "INST")]
    pub(crate) instance: String,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Create {
    /// The builder type, such as openbsd-amd64-60
    #[arg(value_name = "TYPE")]
    pub(crate) builder_type: String,
    /// How to print the instance
    #[arg(short, long, value_enum, default_value = "name")]
    pub(crate) output: CreateOutput,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum CreateOutput {
    /// An object as the coordinator sends it
    Json,
    /// The name alone
    Name,
}

#[derive(Debug, clap::Args)]
pub(crate) struct List {
    /// How to print the instances
    #[arg(short, long, value_enum, default_value = "text")]
    pub(crate) output: ListOutput,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Types {
    /// How to print the builder types
    #[arg(short, long, value_enum, default_value = "text")]
    pub(crate) output: TypesOutput,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum TypesOutput {
    /// An array as the coordinator sends it
    Json,
    /// The names alone
    Name,
    /// A line each: name, host type, idle machines of those that are there, requests that wait; separated by tabs
    Text,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum ListOutput {
    /// An array as the coordinator sends it
    Json,
    /// The names alone
    Name,
    /// A line each: name, builder type, host type, time left, and whether the machine was restarted; separated by tabs
    Text,
}

#[derive(Debug, clap::Args)]
pub(crate) struct JobTarget {
    #[command(flatten)]
    pub(crate) target: Target,
    /// The job, as `run --detach` and `jobs` print it
    #[arg(value_name = "ID")]
    pub(crate) job: JobId,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Jobs {
    /// How to print the jobs
    #[arg(short, long, value_enum, default_value = "text")]
    pub(crate) output: JobsOutput,
    #[command(flatten)]
    pub(crate) target: Target,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum JobsOutput {
    /// An array as the machine sends it
    Json,
    /// A line each: id, state, command; separated by tabs
    Text,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Kill {
    /// The signal for all its processes, without SIG
    #[arg(short, long, value_name = "NAME", default_value = "KILL")]
    pub(crate) signal: Signal,
    #[command(flatten)]
    pub(crate) target: JobTarget,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Logs {
    /// Go on to the end of the job
    #[arg(short, long)]
    pub(crate) follow: bool,
    #[command(flatten)]
    pub(crate) target: JobTarget,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Run {
    /// Look the command up in the machine's PATH even if it has a slash
    #[arg(long)]
    pub(crate) system: bool,
    /// Set a variable of the environment, NAME=VALUE; may be repeated
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub(crate) env: Vec<String>,
    /// The PATH, its directories separated by commas: $PATH stands for the machine's, $WORKDIR for the work directory,
    /// EMPTY alone unsets it
    #[arg(long, value_name = "DIR,..", value_delimiter = ',')]
    pub(crate) path: Vec<String>,
    /// The directory to run in, below the work directory unless absolute
    #[arg(long)]
    pub(crate) dir: Option<String>,
    /// First print what is run, in which directory and environment
    #[arg(long)]
    pub(crate) debug: bool,
    /// Print the job's id and leave it alone: `logs`, `attach`, `wait` and `kill` take it
    #[arg(long, conflicts_with = "debug")]
    pub(crate) detach: bool,
    /// Give the command nothing to read
    #[arg(long)]
    pub(crate) no_stdin: bool,
    #[command(flatten)]
    pub(crate) target: Target,
    /// The command and its arguments
    #[arg(
        value_name = "CMD",
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Put {
    /// The permissions, in octal [default: those of SRC; 666 for -]
    #[arg(long, value_name = "OCTAL", value_parser = octal)]
    pub(crate) mode: Option<u32>,
    #[command(flatten)]
    pub(crate) target: Target,
    /// The file, or - for standard input
    #[arg(value_name = "SRC")]
    pub(crate) source: PathBuf,
    /// Where to, below the work directory [default: the name of SRC]
    #[arg(value_name = "DEST")]
    pub(crate) destination: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Puttar {
    /// Where to, below the work directory
    #[arg(long, default_value = ".")]
    pub(crate) dir: String,
    #[command(flatten)]
    pub(crate) target: Target,
    /// A tar.gz, - for one on standard input, or a directory, which is packed while it is sent
    #[arg(value_name = "FILE")]
    pub(crate) source: PathBuf,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Gettar {
    /// The directory, below the work directory
    #[arg(long, default_value = ".")]
    pub(crate) dir: String,
    #[command(flatten)]
    pub(crate) target: Target,
    /// Where to; - is standard output
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    pub(crate) output: PathBuf,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Ls {
    /// Descend into directories
    #[arg(short = 'R', long)]
    pub(crate) recursive: bool,
    /// Add the SHA-1 of each file
    #[arg(short, long)]
    pub(crate) digest: bool,
    /// Directories to leave out, relative to DIR, separated by commas
    #[arg(long, value_name = "DIR,..", value_delimiter = ',')]
    pub(crate) skip: Vec<String>,
    #[command(flatten)]
    pub(crate) target: Target,
    /// The directory, below the work directory
    #[arg(default_value = ".")]
    pub(crate) dir: String,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Rm {
    #[command(flatten)]
    pub(crate) target: Target,
    /// What to remove, below the work directory; . is everything
    #[arg(value_name = "PATH", required = true)]
    pub(crate) paths: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct SshConfig {
    /// The instances; all of yours where none is named
    #[arg(value_name = "INST")]
    pub(crate) instances: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Ssh {
    /// Print the ssh command, without running it
    #[arg(short = 'n', long)]
    pub(crate) print: bool,
    /// Log in to a machine that keeps what you change on it, for all who come after you
    #[arg(long)]
    pub(crate) i_will_not_break_the_host: bool,
    #[command(flatten)]
    pub(crate) target: Target,
    /// A command, joined by spaces as ssh does, for the shell of the machine
    #[arg(
        value_name = "CMD",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    pub(crate) command: Vec<String>,
}

/// Lets long flags of Go's gomote, which have one dash, be what they were: `gomote run -system INST cmd`. What belongs
/// to the remote command is left alone.
pub fn accept_go_flags(args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut accepted = Vec::new();
    let mut args = args.into_iter();
    let mut positionals = 0;
    for arg in args.by_ref() {
        let name = arg
            .to_str()
            .and_then(|arg| arg.strip_prefix('-'))
            .map(|flag| flag.split('=').next().unwrap_or_default());
        match name {
            Some("-") => {
                accepted.push(arg);
                break;
            }
            Some(name) if GO_FLAGS.contains(&name) => {
                accepted.push([OsString::from("-"), arg].into_iter().collect());
            }
            Some(name) if !name.is_empty() => accepted.push(arg),
            _ => {
                accepted.push(arg);
                positionals += 1;
            }
        }
        // The program, the command and the instance; a flag's value, too, only makes this stop earlier.
        if positionals == 3 {
            break;
        }
    }
    accepted.extend(args);
    accepted
}

fn octal(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8).map_err(|_| "not an octal number".to_owned())?;
    if mode > 0o777 {
        return Err("permissions are at most 777".to_owned());
    }
    Ok(mode)
}

const GO_FLAGS: [&str; 7] = [
    "debug",
    "dir",
    "i-will-not-break-the-host",
    "mode",
    "path",
    "skip",
    "system",
];

const EXAMPLES: &str = "\
Examples:
  gomote create demo-linux             # prints the instance's name
  gomote puttar INST .                 # copies this directory there
  gomote run INST make test            # exits as make does
  gomote ssh INST
  gomote destroy INST

`gomote --help` has the exit codes and the configuration file.";

const LONG_HELP: &str = "\
Examples:
  gomote create demo-linux             # prints the instance's name
  gomote puttar INST .                 # copies this directory there
  gomote run INST make test            # exits as make does
  gomote ssh INST
  gomote destroy INST

Exit codes:
  run, attach, wait, ssh
             as the remote command; 128+n where signal n ended it; 127 where it
             could not be started; 255 where the fault is not the command's
  others     0 done, 1 failed, 2 wrong arguments or configuration,
             3 no such instance or builder type, 4 not known or not allowed
  all        130 after Ctrl-C

Configuration file, $XDG_CONFIG_HOME/gomote/config.toml or --config:
  server = \"https://HOST:PORT\"
  pin = \"sha256:...\"                   # of the coordinator's certificate authority
  user = \"NAME\"
  token = \"...\"                        # then the file must be readable by you alone
  ssh = \"HOST:PORT\"                    # the SSH gateway; default: port 2222 of the server
  ssh_host_key = \"ssh-ed25519 AAAA...\"
  ssh_identity = \"/path/to/key\"";

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn parse(line: &str) -> Command {
        let args = accept_go_flags(line.split(' ').map(OsString::from));
        Cli::try_parse_from(args).unwrap().args.command
    }

    #[test]
    fn the_definition_is_sound() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn what_follows_the_instance_is_the_commands_own() {
        for line in [
            "gomote run --system -e A=b i ls -system --dir -- x",
            "gomote run -system -e A=b i ls -system --dir -- x",
        ] {
            let Command::Run(run) = parse(line) else {
                panic!("{line}")
            };
            assert!(run.system);
            assert_eq!(run.env, ["A=b"]);
            assert_eq!(run.command, ["ls", "-system", "--dir", "--", "x"], "{line}");
        }
    }

    #[test]
    fn two_dashes_before_the_command_are_not_part_of_it() {
        let Command::Run(run) = parse("gomote run i -- ls -l") else {
            panic!()
        };
        assert_eq!(run.command, ["ls", "-l"]);
    }

    #[test]
    fn flags_of_go_keep_their_one_dash() {
        let Command::Put(put) = parse("gomote put -mode 755 i - x") else {
            panic!()
        };
        assert_eq!(put.mode, Some(0o755));
        let Command::Gettar(gettar) = parse("gomote gettar -dir=a/b i") else {
            panic!()
        };
        assert_eq!(gettar.dir, "a/b");
        let Command::Ls(ls) = parse("gomote ls -R -d -skip a,b i") else {
            panic!()
        };
        assert!(ls.recursive && ls.digest);
        assert_eq!(ls.skip, ["a", "b"]);
    }

    #[test]
    fn every_command_has_an_example() {
        use clap::CommandFactory;
        for command in Cli::command().get_subcommands() {
            let help = command
                .get_after_help()
                .map(ToString::to_string)
                .unwrap_or_default();
            assert!(
                help.contains(&format!("gomote {}", command.get_name())),
                "{}",
                command.get_name()
            );
        }
    }

    #[test]
    fn permissions_are_octal_and_no_more_than_permissions() {
        assert_eq!(octal("0644"), Ok(0o644));
        assert!(octal("648").is_err());
        assert!(octal("4755").is_err());
        assert!(octal("-1").is_err());
    }
}
