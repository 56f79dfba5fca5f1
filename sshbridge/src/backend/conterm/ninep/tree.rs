//! The files that a machine sees under `/mnt/term`. They are made up: nothing of the gateway's own files is ever there.

use bytes::BufMut;

use super::message::{Qid, put_string};

/// A file or directory.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Node {
    Cons,
    ConsCtl,
    /// The file that the old `cpu` reads notes from. It never has one: the script reads its own file.
    CpuNote,
    Dev,
    Env,
    Fd,
    Label,
    Mnt,
    Note,
    NoteDir,
    Null,
    Root,
    RStatus,
    Run,
    Stderr,
    Stdin,
    Stdout,
}

impl Node {
    pub(crate) fn parent(self) -> Self {
        match self {
            Self::Root | Self::Dev | Self::Env | Self::Fd | Self::Mnt => Self::Root,
            Self::Cons | Self::ConsCtl | Self::CpuNote | Self::Label | Self::Null => Self::Dev,
            Self::RStatus | Self::Run => Self::Env,
            Self::Stderr | Self::Stdin | Self::Stdout => Self::Fd,
            Self::NoteDir => Self::Mnt,
            Self::Note => Self::NoteDir,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Cons => "cons",
            Self::ConsCtl => "consctl",
            Self::CpuNote | Self::NoteDir => "cpunote",
            Self::Dev => "dev",
            Self::Env => "env",
            Self::Fd => "fd",
            Self::Label => "label",
            Self::Mnt => "mnt",
            Self::Note => "data",
            Self::Null => "null",
            Self::Root => "/",
            Self::RStatus => "rstatus",
            Self::Run => "run",
            Self::Stderr => "2",
            Self::Stdin => "0",
            Self::Stdout => "1",
        }
    }

    pub(crate) fn children(self) -> impl Iterator<Item = Self> {
        let own = move |node: &Self| *node != Self::Root && node.parent() == self;
        ALL.into_iter().filter(own)
    }

    /// What a walk finds from here.
    pub(crate) fn walk(self, name: &str) -> Option<Self> {
        if name == ".." {
            return Some(self.parent());
        }
        self.children().find(|child| child.name() == name)
    }

    pub(crate) fn is_directory(self) -> bool {
        matches!(
            self,
            Self::Root | Self::Dev | Self::Env | Self::Fd | Self::Mnt | Self::NoteDir
        )
    }

    pub(crate) fn qid(self) -> Qid {
        let path = ALL.iter().position(|node| *node == self);
        Qid {
            kind: if self.is_directory() { DIRECTORY } else { 0 },
            path: u64::try_from(path.unwrap_or_default()).unwrap_or_default(),
        }
    }

    /// The description of the file, with its size in front. `length` is that of its content, where it has any.
    pub(crate) fn stat(self, length: u64) -> Vec<u8> {
        let mut out = Vec::with_capacity(80);
        let (kind, mode) = if self.is_directory() {
            (u32::from(DIRECTORY), 0o555)
        } else {
            (0, 0o666)
        };
        out.put_bytes(0, 2 + 2 + 4);
        self.qid().put(&mut out);
        out.put_u32_le((kind << 24) | mode);
        out.put_bytes(0, 8); // the times
        out.put_u64_le(length);
        for text in [self.name(), OWNER, OWNER, OWNER] {
            put_string(text, &mut out);
        }
        let size = u16::try_from(out.len() - 2).expect("names are short");
        out[..2].copy_from_slice(&size.to_le_bytes());
        out
    }
}

/// All there are; the position is the number on the wire.
const ALL: [Node; 17] = [
    Node::Root,
    Node::Dev,
    Node::Cons,
    Node::ConsCtl,
    Node::CpuNote,
    Node::Null,
    Node::Label,
    Node::Env,
    Node::Run,
    Node::RStatus,
    Node::Fd,
    Node::Stdin,
    Node::Stdout,
    Node::Stderr,
    Node::Mnt,
    Node::NoteDir,
    Node::Note,
];

const DIRECTORY: u8 = 0x80;

/// The files are nobody's.
const OWNER: &str = "none";
