//! What a Plan 9 machine cannot do for an SSH client, in sentences that say what to use.

/// The sentence for a subsystem.
pub(super) fn of_subsystem(name: &str) -> &'static str {
    match name {
        "sftp" => COPY,
        _ => "this is a Plan 9 machine: it has no subsystems; run a command\n",
    }
}

/// The sentence for a command that needs a program on the other side which Plan 9 does not have.
pub(super) fn of_command(command: &[u8], has_files: bool) -> Option<&'static str> {
    let needs_peer = [b"scp -".as_slice(), b"rsync --server", b"sftp-server"];
    let needed = needs_peer.iter().any(|start| command.starts_with(start));
    needed.then_some(if has_files { SFTP } else { COPY })
}

const COPY: &str = "this is a Plan 9 machine: it has no sftp, scp or rsync; use `ssh INSTANCE 'cat >FILE' <FILE`, \
                    or gomote put, puttar and gettar\n";

const SFTP: &str =
    "this is a Plan 9 machine: it has no scp or rsync; use `sftp`, or `scp` without -O\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_that_copy_are_told_what_does() {
        for command in ["scp -t /tmp", "scp -r -f x", "rsync --server . ."] {
            assert_eq!(of_command(command.as_bytes(), true), Some(SFTP));
            assert_eq!(of_command(command.as_bytes(), false), Some(COPY));
        }
        assert_eq!(of_command(b"cat >scp", true), None);
        assert_eq!(of_subsystem("sftp"), COPY);
        assert_ne!(of_subsystem("netconf"), COPY);
    }
}
