//! The terminal modes of RFC 4254 §8, applied to a Unix terminal.

use rustix::termios::{
    ControlModes, InputModes, LocalModes, OutputModes, SpecialCodeIndex, Termios,
};

/// Applies the modes that this system knows, in their order, and leaves the others out.
pub(super) fn apply(termios: &mut Termios, modes: &[(u8, u32)]) {
    for &(opcode, argument) in modes {
        if let Some(index) = special_code(opcode) {
            termios.special_codes[index] = character(argument);
        } else if let Some(flag) = input_mode(opcode) {
            termios.input_modes.set(flag, argument != 0);
        } else if let Some(flag) = local_mode(opcode) {
            termios.local_modes.set(flag, argument != 0);
        } else if let Some(flag) = output_mode(opcode) {
            termios.output_modes.set(flag, argument != 0);
        } else {
            apply_line(termios, opcode, argument);
        }
    }
}

/// The settings of a serial line. A speed that the system does not take is left as it is.
fn apply_line(termios: &mut Termios, opcode: u8, argument: u32) {
    let on = argument != 0;
    match opcode {
        90 if on => set_size(termios, ControlModes::CS7),
        91 if on => set_size(termios, ControlModes::CS8),
        92 => termios.control_modes.set(ControlModes::PARENB, on),
        93 => termios.control_modes.set(ControlModes::PARODD, on),
        128 => drop(termios.set_input_speed(argument)),
        129 => drop(termios.set_output_speed(argument)),
        _ => {}
    }
}

fn set_size(termios: &mut Termios, size: ControlModes) {
    termios.control_modes.remove(ControlModes::CSIZE);
    termios.control_modes.insert(size);
}

/// A special character: 255 says that there is none (RFC 4254 §8).
fn character(argument: u32) -> u8 {
    match u8::try_from(argument) {
        Ok(255) | Err(_) => NO_CHARACTER,
        Ok(character) => character,
    }
}

fn special_code(opcode: u8) -> Option<SpecialCodeIndex> {
    Some(match opcode {
        1 => SpecialCodeIndex::VINTR,
        2 => SpecialCodeIndex::VQUIT,
        3 => SpecialCodeIndex::VERASE,
        4 => SpecialCodeIndex::VKILL,
        5 => SpecialCodeIndex::VEOF,
        6 => SpecialCodeIndex::VEOL,
        7 => SpecialCodeIndex::VEOL2,
        8 => SpecialCodeIndex::VSTART,
        9 => SpecialCodeIndex::VSTOP,
        10 => SpecialCodeIndex::VSUSP,
        12 => SpecialCodeIndex::VREPRINT,
        13 => SpecialCodeIndex::VWERASE,
        14 => SpecialCodeIndex::VLNEXT,
        18 => SpecialCodeIndex::VDISCARD,
        _ => return None,
    })
}

fn input_mode(opcode: u8) -> Option<InputModes> {
    Some(match opcode {
        30 => InputModes::IGNPAR,
        31 => InputModes::PARMRK,
        32 => InputModes::INPCK,
        33 => InputModes::ISTRIP,
        34 => InputModes::INLCR,
        35 => InputModes::IGNCR,
        36 => InputModes::ICRNL,
        38 => InputModes::IXON,
        39 => InputModes::IXANY,
        40 => InputModes::IXOFF,
        41 => InputModes::IMAXBEL,
        #[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
        42 => InputModes::IUTF8, // RFC 8160
        _ => return None,
    })
}

fn local_mode(opcode: u8) -> Option<LocalModes> {
    Some(match opcode {
        50 => LocalModes::ISIG,
        51 => LocalModes::ICANON,
        53 => LocalModes::ECHO,
        54 => LocalModes::ECHOE,
        55 => LocalModes::ECHOK,
        56 => LocalModes::ECHONL,
        57 => LocalModes::NOFLSH,
        58 => LocalModes::TOSTOP,
        59 => LocalModes::IEXTEN,
        60 => LocalModes::ECHOCTL,
        61 => LocalModes::ECHOKE,
        62 => LocalModes::PENDIN,
        _ => return None,
    })
}

fn output_mode(opcode: u8) -> Option<OutputModes> {
    Some(match opcode {
        70 => OutputModes::OPOST,
        72 => OutputModes::ONLCR,
        73 => OutputModes::OCRNL,
        74 => OutputModes::ONOCR,
        75 => OutputModes::ONLRET,
        _ => return None,
    })
}

/// `_POSIX_VDISABLE`: what stands for no character.
const NO_CHARACTER: u8 = if cfg!(any(
    target_os = "linux",
    target_os = "android",
    target_os = "illumos",
    target_os = "solaris"
)) {
    0
} else {
    255
};
