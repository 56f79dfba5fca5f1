//! The mutants by name, and the case that each must fail.

mod control;
mod record;
mod session;
mod stream;
mod waking;

use super::Mutant;
use crate::target::Target;

pub(super) static MUTANTS: &[&[Mutant]] = &[
    stream::MUTANTS,
    waking::MUTANTS,
    control::MUTANTS,
    record::MUTANTS,
    session::MUTANTS,
];

const fn mutant(
    name: &'static str,
    fault: &'static str,
    named_case: &'static str,
    make: fn() -> Target,
) -> Mutant {
    Mutant {
        name,
        fault,
        named_case,
        make,
    }
}
