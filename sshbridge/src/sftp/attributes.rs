use bytes::{BufMut, BytesMut};

use super::wire::{Fields, Malformed};

/// The attributes of a file, each where it is known or is to be changed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "version 3 of the protocol fixes the fields"
)]
pub struct Attributes {
    /// The size in bytes.
    pub size: Option<u64>,
    /// The numbers of the user and of the group.
    pub owner: Option<(u32, u32)>,
    /// The mode as POSIX has it, with the kind of file.
    pub permissions: Option<u32>,
    /// When it was last read and when it was last changed, in seconds since 1970.
    pub times: Option<(u32, u32)>,
}

impl Attributes {
    pub(super) fn decode(fields: &mut Fields) -> Result<Self, Malformed> {
        let flags = fields.u32()?;
        let mut attributes = Self::default();
        if flags & SIZE != 0 {
            attributes.size = Some(fields.u64()?);
        }
        if flags & OWNER != 0 {
            attributes.owner = Some((fields.u32()?, fields.u32()?));
        }
        if flags & PERMISSIONS != 0 {
            attributes.permissions = Some(fields.u32()?);
        }
        if flags & TIMES != 0 {
            attributes.times = Some((fields.u32()?, fields.u32()?));
        }
        if flags & EXTENDED != 0 {
            // None is known here; the packet bounds their number.
            for _ in 0..fields.u32()? {
                fields.string()?;
                fields.string()?;
            }
        }
        Ok(attributes)
    }

    pub(super) fn encode(&self, buffer: &mut BytesMut) {
        let mut flags = 0;
        flags |= self.size.map_or(0, |_| SIZE);
        flags |= self.owner.map_or(0, |_| OWNER);
        flags |= self.permissions.map_or(0, |_| PERMISSIONS);
        flags |= self.times.map_or(0, |_| TIMES);
        buffer.put_u32(flags);
        if let Some(size) = self.size {
            buffer.put_u64(size);
        }
        if let Some((user, group)) = self.owner {
            buffer.put_u32(user);
            buffer.put_u32(group);
        }
        if let Some(permissions) = self.permissions {
            buffer.put_u32(permissions);
        }
        if let Some((read, changed)) = self.times {
            buffer.put_u32(read);
            buffer.put_u32(changed);
        }
    }
}

/// The flags of draft-ietf-secsh-filexfer-02 §5.
const SIZE: u32 = 1;
const OWNER: u32 = 2;
const PERMISSIONS: u32 = 4;
const TIMES: u32 = 8;
const EXTENDED: u32 = 0x8000_0000;
