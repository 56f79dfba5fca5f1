//! Signals by name, and as Go describes them.

use buildlet_proto::jobs;
use rustix::process::Signal;

/// The number of a signal on this system.
pub(super) fn number(signal: jobs::Signal) -> i32 {
    let (_, signal) = NAMES
        .into_iter()
        .find(|(name, _)| *name == signal.as_str())
        .unwrap_or(("KILL", Signal::KILL));
    signal.as_raw()
}

/// The name of a signal without `SIG`, or its number where it has none here.
pub(super) fn name(number: i32) -> String {
    let known = NAMES.iter().find(|(_, signal)| signal.as_raw() == number);
    known.map_or_else(|| number.to_string(), |(name, _)| (*name).to_owned())
}

/// The description of a signal in Go's `syscall` package on Linux, by the numbers of the system that this runs on.
pub(super) fn description(signal: i32) -> String {
    let described = match Signal::from_named_raw(signal) {
        Some(Signal::HUP) => "hangup",
        Some(Signal::INT) => "interrupt",
        Some(Signal::QUIT) => "quit",
        Some(Signal::ILL) => "illegal instruction",
        Some(Signal::TRAP) => "trace/breakpoint trap",
        Some(Signal::ABORT) => "aborted",
        Some(Signal::BUS) => "bus error",
        Some(Signal::FPE) => "floating point exception",
        Some(Signal::KILL) => "killed",
        Some(Signal::USR1) => "user defined signal 1",
        Some(Signal::SEGV) => "segmentation fault",
        Some(Signal::USR2) => "user defined signal 2",
        Some(Signal::PIPE) => "broken pipe",
        Some(Signal::ALARM) => "alarm clock",
        Some(Signal::TERM) => "terminated",
        Some(Signal::XCPU) => "CPU time limit exceeded",
        Some(Signal::XFSZ) => "file size limit exceeded",
        Some(Signal::VTALARM) => "virtual timer expired",
        Some(Signal::PROF) => "profiling timer expired",
        Some(Signal::SYS) => "bad system call",
        _ => return format!("signal {signal}"),
    };
    described.to_owned()
}

const NAMES: [(&str, Signal); 20] = [
    ("ABRT", Signal::ABORT),
    ("ALRM", Signal::ALARM),
    ("BUS", Signal::BUS),
    ("CONT", Signal::CONT),
    ("FPE", Signal::FPE),
    ("HUP", Signal::HUP),
    ("ILL", Signal::ILL),
    ("INT", Signal::INT),
    ("KILL", Signal::KILL),
    ("PIPE", Signal::PIPE),
    ("QUIT", Signal::QUIT),
    ("SEGV", Signal::SEGV),
    ("STOP", Signal::STOP),
    ("SYS", Signal::SYS),
    ("TERM", Signal::TERM),
    ("TRAP", Signal::TRAP),
    ("TSTP", Signal::TSTP),
    ("USR1", Signal::USR1),
    ("USR2", Signal::USR2),
    ("WINCH", Signal::WINCH),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_signal_of_the_protocol_has_its_number() {
        for signal in [
            "ABRT", "ALRM", "CONT", "HUP", "INT", "KILL", "QUIT", "STOP", "TERM", "TSTP",
        ] {
            let signal: jobs::Signal = signal.parse().unwrap();
            assert_eq!(name(number(signal)), signal.as_str());
        }
        for signal in ["USR1", "USR2", "WINCH"] {
            let signal: jobs::Signal = signal.parse().unwrap();
            assert_eq!(name(number(signal)), signal.as_str());
        }
        assert_eq!(name(63), "63");
    }
}
