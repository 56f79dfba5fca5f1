//! Signals as Go describes them.

/// The description of a signal in Go's `syscall` package on Linux, by the numbers of the system that this runs on.
pub(super) fn description(signal: i32) -> String {
    use rustix::process::Signal;

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
