//! The files and directories that a client has open.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::{FileError, OpenDirectory, OpenFile, Writes};

/// What is open, by numbers that are never given twice.
#[derive(Default)]
pub(super) struct Handles {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    last: u32,
    open: HashMap<u32, Open>,
}

enum Open {
    Directory(Arc<dyn OpenDirectory>),
    File(Arc<dyn OpenFile>, Writes),
}

impl Handles {
    /// Whether another file may be opened; asked before one is.
    pub(super) fn check_room(&self) -> Result<(), FileError> {
        if self.state().open.len() < MAX_HANDLES {
            Ok(())
        } else {
            Err(FileError::Failure)
        }
    }

    pub(super) fn add_file(
        &self,
        file: Arc<dyn OpenFile>,
        writes: Writes,
    ) -> Result<Bytes, FileError> {
        self.add(Open::File(file, writes))
    }

    pub(super) fn add_directory(
        &self,
        directory: Arc<dyn OpenDirectory>,
    ) -> Result<Bytes, FileError> {
        self.add(Open::Directory(directory))
    }

    pub(super) fn file(&self, handle: &[u8]) -> Result<Arc<dyn OpenFile>, FileError> {
        match self.state().open.get(&number(handle)?) {
            Some(Open::File(file, _)) => Ok(file.clone()),
            Some(Open::Directory(_)) | None => Err(FileError::Failure),
        }
    }

    pub(super) fn directory(&self, handle: &[u8]) -> Result<Arc<dyn OpenDirectory>, FileError> {
        match self.state().open.get(&number(handle)?) {
            Some(Open::Directory(directory)) => Ok(directory.clone()),
            Some(Open::File(..)) | None => Err(FileError::Failure),
        }
    }

    /// Whether the writes of a file go to its end, so that their order shows.
    pub(super) fn writes(&self, handle: &[u8]) -> Writes {
        let number = number(handle).unwrap_or(0);
        match self.state().open.get(&number) {
            Some(Open::File(_, writes)) => *writes,
            Some(Open::Directory(_)) | None => Writes::At,
        }
    }

    /// Forgets a handle, and gives back what file it was.
    pub(super) fn close(&self, handle: &[u8]) -> Result<Option<Arc<dyn OpenFile>>, FileError> {
        let number = number(handle)?;
        match self.state().open.remove(&number) {
            Some(Open::File(file, _)) => Ok(Some(file)),
            Some(Open::Directory(_)) => Ok(None),
            None => Err(FileError::Failure),
        }
    }

    fn add(&self, open: Open) -> Result<Bytes, FileError> {
        let mut state = self.state();
        if state.open.len() >= MAX_HANDLES {
            return Err(FileError::Failure);
        }
        state.last = state.last.checked_add(1).ok_or(FileError::Failure)?;
        let number = state.last;
        state.open.insert(number, open);
        Ok(Bytes::copy_from_slice(&number.to_be_bytes()))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn number(handle: &[u8]) -> Result<u32, FileError> {
    let bytes = handle.try_into().map_err(|_| FileError::Failure)?;
    Ok(u32::from_be_bytes(bytes))
}

/// How many files and directories a client may have open, against one that takes all descriptors of the machine.
pub(super) const MAX_HANDLES: usize = 256;
