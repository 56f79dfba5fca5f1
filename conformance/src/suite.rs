//! The macro that turns the catalogue into tests, and what it calls.

use crate::case::find;
use crate::report::Outcome;
use crate::run::{Options, run_case};
use crate::target::Target;

/// Runs one case as a test of the user's crate.
///
/// The seed comes from the environment variable `CONFORMANCE_SEED`, 1 where it is not set.
///
/// # Panics
///
/// When the case fails, with what was expected, what was seen, and how to run it again.
#[doc(hidden)]
#[expect(
    clippy::print_stderr,
    reason = "a skipped case must not look like a passed one"
)]
pub fn check(target: &Target, id: &str) {
    let case = find(id).expect("the macro lists only cases of the catalogue");
    let seed = std::env::var("CONFORMANCE_SEED").ok();
    let mut options = Options::default();
    if let Some(seed) = seed.and_then(|seed| seed.parse().ok()) {
        options.seed = seed;
    }
    let outcome = run_case(target, case, &options).outcome;
    let detail = outcome.detail().unwrap_or_default();
    match outcome {
        Outcome::Passed => {}
        Outcome::Skipped(_) => eprintln!("{id} skipped: {detail}"),
        Outcome::Failed(_) => panic!(
            "{}: {id}: {}\n  {detail}\n  promise: {}\n  again: CONFORMANCE_SEED={} cargo test {}",
            target.name(),
            case.title,
            case.promise,
            options.seed,
            id.replace('.', "::"),
        ),
    }
}

/// Makes one test of every case of the catalogue.
///
/// `suite!(name, maker, caps)` takes a [`MakePair`](crate::MakePair), `suite!(mux name, maker, caps)` a
/// [`MakeMux`](crate::MakeMux). The tests are called `name::io::bulk` and so on; one whose capability is not claimed
/// says so on standard error and passes.
///
/// ```
/// use conn_conformance::{Cap, Caps, Pair, suite};
///
/// async fn duplex() -> std::io::Result<Pair> {
///     let (a, b) = tokio::io::duplex(4096);
///     Ok(Pair::new(a, b))
/// }
///
/// suite!(duplex_keeps_its_promises, duplex, Caps::of(&[Cap::HalfClose, Cap::InMemory, Cap::PeerGone]));
/// ```
#[macro_export]
macro_rules! suite {
    (mux $name:ident, $maker:expr, $caps:expr) => {
        $crate::__suite_module!($name, $crate::Target::mux(stringify!($name), $maker, $caps));
    };
    ($name:ident, $maker:expr, $caps:expr) => {
        $crate::__suite_module!(
            $name,
            $crate::Target::pairs(stringify!($name), $maker, $caps)
        );
    };
}

/// The module of one suite.
#[doc(hidden)]
#[macro_export]
macro_rules! __suite_module {
    ($name:ident, $target:expr) => {
        #[cfg(test)]
        mod $name {
            #[allow(
                unused_imports,
                clippy::allow_attributes,
                reason = "a maker may be named by its full path"
            )]
            use super::*;

            fn target() -> $crate::Target {
                $target
            }

            $crate::__each_case!();
        }
    };
}

/// One module of tests.
#[doc(hidden)]
#[macro_export]
macro_rules! __cases {
    ($($group:ident: $($case:ident)+;)+) => {
        $(
            mod $group {
                $(
                    #[test]
                    fn $case() {
                        let id = concat!(stringify!($group), ".", stringify!($case));
                        $crate::check(&super::target(), id);
                    }
                )+
            }
        )+
    };
}

#[cfg(test)]
mod tests {
    use crate::case::catalogue;

    #[test]
    fn the_macro_lists_the_whole_catalogue() {
        let source = include_str!("suite/list.rs");
        let mut listed: Vec<String> = Vec::new();
        for line in source.lines() {
            if let Some((group, cases)) = line.trim().trim_end_matches(';').split_once(": ") {
                listed.extend(
                    cases
                        .split_whitespace()
                        .map(|case| format!("{group}.{case}")),
                );
            }
        }
        let mut ids: Vec<_> = catalogue().map(|case| case.id.to_owned()).collect();
        listed.sort();
        ids.sort();
        assert_eq!(listed, ids);
    }
}
