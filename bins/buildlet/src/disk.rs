//! How full the disk may become.

use std::os::fd::{AsFd, OwnedFd};

use buildlet_proto::{ApiError, ErrorStatus};

/// Watches the free space of a file system while something is written to it.
///
/// An upload is refused before the last of the disk is taken: an archive that grows a thousandfold when it is unpacked, or
/// a file without an end, must not take with it what else lives on the machine.
#[derive(Debug)]
pub(crate) struct Room {
    dir: OwnedFd,
    /// Bytes that are to stay free.
    reserve: u64,
    /// Bytes that may be written before the system is asked again.
    unasked: u64,
}

impl Room {
    /// Watches the file system of `dir`, of which `reserve` bytes are to stay free; 0 watches nothing.
    pub(crate) fn new(dir: OwnedFd, reserve: u64) -> Self {
        Self {
            dir,
            reserve,
            unasked: 0,
        }
    }

    /// Asks for room for `length` bytes more.
    ///
    /// # Errors
    ///
    /// 507 where less than the reserve is left.
    pub(crate) fn take(&mut self, length: usize) -> Result<(), ApiError> {
        if self.reserve == 0 {
            return Ok(());
        }
        let length = length as u64;
        if let Some(left) = self.unasked.checked_sub(length) {
            self.unasked = left;
            return Ok(());
        }
        let free = free(&self.dir)?;
        let Some(spare) = free.checked_sub(self.reserve) else {
            return Err(ApiError::new(
                ErrorStatus::INSUFFICIENT_STORAGE,
                format!(
                    "the machine's disk is nearly full: {} MiB are free, {} MiB have to stay so; remove something first",
                    free >> 20,
                    self.reserve >> 20
                ),
            ));
        };
        // Others write as well, so no more than a part is trusted.
        self.unasked = (spare / 4).min(STRIDE);
        Ok(())
    }
}

/// Bytes that an ordinary user may still write; where the system does not say, as many as one likes.
pub(crate) fn free(dir: impl AsFd) -> Result<u64, ApiError> {
    match rustix::fs::fstatvfs(dir) {
        Ok(stat) => Ok(stat.f_bavail.saturating_mul(stat.f_frsize)),
        Err(error) => Err(ApiError::internal("cannot ask for the free space")
            .because(std::io::Error::from(error))),
    }
}

/// Bytes that are written at most between two questions.
const STRIDE: u64 = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn room(reserve: u64) -> Room {
        let dir = std::fs::File::open(std::env::temp_dir()).unwrap();
        Room::new(dir.into(), reserve)
    }

    #[test]
    fn a_reserve_that_is_not_there_refuses_every_byte() {
        let error = room(u64::MAX).take(1).unwrap_err();
        assert_eq!(error.status(), ErrorStatus::INSUFFICIENT_STORAGE);
        assert!(error.message().contains("nearly full"), "{error}");
    }

    #[test]
    fn without_a_reserve_nothing_is_asked() {
        room(0).take(usize::MAX).unwrap();
    }
}
