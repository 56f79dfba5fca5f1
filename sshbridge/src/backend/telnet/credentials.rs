//! The account that the gateway logs in with.

use std::fmt;

use zeroize::Zeroizing;

/// An account on one machine and its password, which is erased from memory when it was sent.
#[derive(Clone)]
pub struct Credentials {
    user: String,
    password: Option<Zeroizing<String>>,
}

impl Credentials {
    /// An account whose name can do no harm in a server.
    ///
    /// # Errors
    ///
    /// [`InvalidUser`]. A name that begins with `-` is an option to the program behind the server, and has let people in
    /// without a password (CVE-2026-24061).
    pub fn new(user: impl Into<String>) -> Result<Self, InvalidUser> {
        let user = user.into();
        let valid = !user.is_empty()
            && user.len() <= MAX_USER
            && !user.starts_with('-')
            && !user.contains(|c: char| c.is_control() || c.is_whitespace());
        if !valid {
            return Err(InvalidUser);
        }
        Ok(Self {
            user,
            password: None,
        })
    }

    /// Gives the account its password.
    #[must_use]
    pub fn with_password(mut self, password: &str) -> Self {
        self.password = Some(Zeroizing::new(password.to_owned()));
        self
    }

    /// The name of the account.
    pub fn user(&self) -> &str {
        &self.user
    }

    pub(super) fn take_password(&mut self) -> Option<Zeroizing<String>> {
        self.password.take()
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}

/// The name is none of an account.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "an account's name is 1 to {MAX_USER} bytes without spaces and control bytes, and does not begin with '-'"
)]
#[expect(clippy::exhaustive_structs, reason = "it says nothing of the name")]
pub struct InvalidUser;

const MAX_USER: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_harm_a_server_are_refused() {
        for user in [
            "",
            "-froot",
            "-f root",
            "a\nb",
            "a b",
            "a\0",
            "\x7f",
            &"a".repeat(65),
        ] {
            assert_eq!(Credentials::new(user).unwrap_err(), InvalidUser, "{user:?}");
        }
        for user in [
            "root",
            "DOMAIN\\gopher",
            "gopher@example.org",
            &"a".repeat(64),
        ] {
            assert_eq!(Credentials::new(user).unwrap().user(), user);
        }
    }

    #[test]
    fn debug_shows_nothing() {
        let credentials = Credentials::new("root").unwrap().with_password("hunter2");
        assert_eq!(format!("{credentials:?}"), "Credentials { .. }");
    }
}
