//! The catalogue: every promise that the suite checks, under a stable id.

use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use crate::caps::Cap;
use crate::cases;
use crate::context::Cx;
use crate::report::Failure;

/// One promise of a connection, and how it is checked.
#[non_exhaustive]
pub struct Case {
    /// The stable name: `io.bulk`. Its first part names the group in the suite's macro.
    pub id: &'static str,
    /// The case in a few words.
    pub title: &'static str,
    /// What a transport promises, in a sentence.
    pub promise: &'static str,
    /// Who says so.
    pub source: &'static str,
    /// A real defect of this kind.
    pub bug: &'static str,
    /// The group, a page of [`cases`].
    pub group: Group,
    /// How long one run may take, on the clock it runs by.
    pub limit: Duration,
    /// What a transport must claim for the case to apply.
    pub needs: &'static [Cap],
    /// Another name: that of Go's nettest.
    pub alias: Option<&'static str>,
    pub(crate) body: Body,
}

impl Case {
    /// Whether `pattern` selects the case: its id, its alias, or either with `*` for any run of characters.
    ///
    /// ```
    /// let case = conn_conformance::find("nettest.BasicIO").unwrap();
    /// assert!(case.matches("nettest.basic_io") && case.matches("nettest.*") && !case.matches("io.*"));
    /// ```
    pub fn matches(&self, pattern: &str) -> bool {
        glob(pattern, self.id) || self.alias.is_some_and(|alias| glob(pattern, alias))
    }
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Case")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// How a case is executed.
#[derive(Clone, Copy)]
pub(crate) enum Body {
    /// Polled by hand with counting wakers, on one thread: in virtual time where the transport allows.
    Steps(Run),
    /// Tasks on one thread in virtual time, and again on several threads in real time.
    Tasks(Run),
    /// Tasks on one thread in virtual time only: it measures bytes or time, which must not depend on the machine.
    Virtual(Run),
}

/// A case's code.
pub(crate) type Run = fn(Cx) -> Pin<Box<dyn Future<Output = Result<(), Failure>>>>;

/// A page of the catalogue.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Group {
    /// Bytes in both directions.
    Io,
    /// The end of a stream.
    Eof,
    /// One direction ended, the other going on.
    Half,
    /// Ending our direction.
    Shutdown,
    /// Ends that are dropped.
    Drop,
    /// The transport beneath dies.
    Cut,
    /// Abrupt ends.
    Reset,
    /// Close from another task.
    Close,
    /// Flushing.
    Flush,
    /// Backpressure.
    Bp,
    /// Memory.
    Mem,
    /// Wakers.
    Wake,
    /// Dropped futures.
    Cancel,
    /// Deadlines.
    Deadline,
    /// Addresses.
    Addr,
    /// Go's eleven cases.
    Nettest,
    /// Several streams over one connection.
    Mux,
    /// Hostile and odd bytes on the wire.
    Wire,
}

impl Group {
    /// Every group, in the order of the catalogue.
    pub const ALL: &'static [Self] = &[
        Self::Io,
        Self::Eof,
        Self::Half,
        Self::Shutdown,
        Self::Drop,
        Self::Cut,
        Self::Reset,
        Self::Close,
        Self::Flush,
        Self::Bp,
        Self::Mem,
        Self::Wake,
        Self::Cancel,
        Self::Deadline,
        Self::Addr,
        Self::Nettest,
        Self::Mux,
        Self::Wire,
    ];

    /// The name in reports: `io`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Io => "io",
            Self::Eof => "eof",
            Self::Half => "half",
            Self::Shutdown => "shutdown",
            Self::Drop => "drop",
            Self::Cut => "cut",
            Self::Reset => "reset",
            Self::Close => "close",
            Self::Flush => "flush",
            Self::Bp => "bp",
            Self::Mem => "mem",
            Self::Wake => "wake",
            Self::Cancel => "cancel",
            Self::Deadline => "deadline",
            Self::Addr => "addr",
            Self::Nettest => "nettest",
            Self::Mux => "mux",
            Self::Wire => "wire",
        }
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The whole catalogue, in order.
pub fn catalogue() -> impl Iterator<Item = &'static Case> {
    cases::GROUPS.iter().flat_map(|group| group.iter().copied())
}

/// The case with this id or alias.
pub fn find(id: &str) -> Option<&'static Case> {
    catalogue().find(|case| case.id == id || case.alias == Some(id))
}

/// Matches `text` against a pattern in which `*` stands for any run of characters.
fn glob(pattern: &str, text: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    text.strip_prefix(head).is_some_and(|text| {
        (0..=text.len())
            .filter(|&i| text.is_char_boundary(i))
            .any(|i| glob(rest, &text[i..]))
    })
}

/// Declares the cases of one page: a documented static for each, and the list of all.
macro_rules! page {
    ($group:ident; $($name:ident = $id:literal $(alias $alias:literal)?, $title:literal {
        promise: $promise:literal,
        source: $source:literal,
        bug: $bug:literal,
        secs: $secs:literal,
        needs: [$($cap:ident),* $(,)?],
        $body:ident: $run:path,
    })+) => {
        $(
            // All in the first paragraph: that is what the page of the group shows.
            #[doc = concat!("`", $id, "`: ", $title, ". **Promise:** ", $promise, " **Stands for:** ", $bug,
                ".\n\n**Source:** ", $source, ".")]
            pub static $name: $crate::case::Case = $crate::case::Case {
                id: $id,
                title: $title,
                promise: $promise,
                source: $source,
                bug: $bug,
                group: $crate::case::Group::$group,
                limit: std::time::Duration::from_secs($secs),
                needs: &[$($crate::caps::Cap::$cap),*],
                alias: page!(@alias $($alias)?),
                body: $crate::case::Body::$body(|cx| Box::pin($run(cx))),
            };
        )+

        /// The cases of this page, in order.
        pub static ALL: &[&$crate::case::Case] = &[$(&$name),+];
    };
    (@alias $alias:literal) => { Some($alias) };
    (@alias) => { None };
}
pub(crate) use page;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_are_unique_and_a_hundred_at_least() {
        let ids: HashSet<_> = catalogue().map(|case| case.id).collect();
        assert_eq!(ids.len(), catalogue().count());
        assert!(ids.len() >= 100, "{}", ids.len());
    }

    #[test]
    fn every_case_says_what_it_promises_and_who_says_so() {
        for case in catalogue() {
            assert!(case.promise.ends_with('.'), "{}", case.id);
            assert!(!case.title.is_empty() && !case.source.is_empty() && !case.bug.is_empty());
            assert!(!case.limit.is_zero(), "{}", case.id);
        }
    }

    #[test]
    fn a_star_stands_for_any_run_of_characters() {
        assert!(glob("io.*", "io.bulk") && glob("*", "") && glob("*.b*k", "io.bulk"));
        assert!(!glob("io.", "io.bulk") && !glob("*x", "io.bulk"));
    }
}
