//! Names of signals (RFC 4254 §6.10), which the SSH library keeps to itself.

use russh::Sig;

/// The name without `SIG`.
pub(crate) fn name(signal: Sig) -> String {
    let name = match signal {
        Sig::ABRT => "ABRT",
        Sig::ALRM => "ALRM",
        Sig::FPE => "FPE",
        Sig::HUP => "HUP",
        Sig::ILL => "ILL",
        Sig::INT => "INT",
        Sig::KILL => "KILL",
        Sig::PIPE => "PIPE",
        Sig::QUIT => "QUIT",
        Sig::SEGV => "SEGV",
        Sig::TERM => "TERM",
        Sig::USR1 => "USR1",
        Sig::Custom(name) => return name,
    };
    name.to_owned()
}

/// The signal of that name; on the wire there are only names.
pub(crate) fn from_name(name: String) -> Sig {
    Sig::Custom(name)
}
