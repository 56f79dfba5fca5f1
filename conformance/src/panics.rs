//! Panics of the transport's own tasks, which nobody joins.

use std::cell::RefCell;
use std::panic::{PanicHookInfo, set_hook, take_hook};
use std::sync::{Arc, Mutex, Once, PoisonError};

use crate::report::Failure;

/// The panics of the threads that one run of a case uses.
#[derive(Clone, Debug, Default)]
pub(crate) struct Panics(Arc<Mutex<Vec<String>>>);

thread_local! {
    static WATCHED: RefCell<Option<Panics>> = const { RefCell::new(None) };
}

impl Panics {
    /// Collects the panics of this thread from here on. They are not printed: the report shows them.
    pub(crate) fn watch(&self) {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let before = take_hook();
            set_hook(Box::new(move |info| match watched() {
                Some(panics) => panics.note(info),
                None => before(info),
            }));
        });
        WATCHED.with(|watched| *watched.borrow_mut() = Some(self.clone()));
    }

    /// Fails if there was one.
    pub(crate) fn none(&self) -> Result<(), Failure> {
        match self.lock().first() {
            Some(panic) => Err(Failure::new("no panic in any task", panic)),
            None => Ok(()),
        }
    }

    fn note(&self, info: &PanicHookInfo<'_>) {
        let text = crate::run::panic_text(info.payload());
        let place = info.location().map(|place| {
            let (file, line) = (in_crate(place.file()), place.line());
            format!(" at {file}:{line}")
        });
        self.lock()
            .push(format!("{text}{}", place.unwrap_or_default()));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who watches this thread. One that is ending has no locals any more.
fn watched() -> Option<Panics> {
    let watched = WATCHED.try_with(|watched| watched.try_borrow().ok()?.clone());
    watched.ok().flatten()
}

/// The path of a source file without where this machine keeps its crates.
fn in_crate(file: &str) -> &str {
    let Some((_, in_registry)) = file.split_once("/registry/src/") else {
        return file;
    };
    in_registry.split_once('/').map_or(file, |(_, path)| path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_of_a_panic_does_not_tell_of_the_machine() {
        let file = "/home/x/.cargo/registry/src/index-1/h2-0.4.20/src/lib.rs";
        assert_eq!(in_crate(file), "h2-0.4.20/src/lib.rs");
        assert_eq!(in_crate("src/lib.rs"), "src/lib.rs");
    }
}
