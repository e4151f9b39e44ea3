//! Groups of the network whose datagrams a queue pair receives.
//!
//! A device refuses to destroy a queue pair that is still in a group: so a queue pair knows its groups, and leaves them before it ends.
#![allow(unsafe_code)]

use super::pair::QueuePair;
use super::service::Ud;
use crate::device::Gid;
use crate::error::{Error, Result};
use sinew_verbs_sys as sys;
use std::sync::{Mutex, PoisonError};

/// The groups that a queue pair is in, by GID and local identifier.
#[derive(Default)]
pub(super) struct Groups(Mutex<Vec<(Gid, u16)>>);

impl Groups {
    /// Leaves all: what the device does not let go of stays, and the end of the queue pair says so.
    pub(super) fn leave_all(&self, leave: impl Fn(Gid, u16) -> std::result::Result<(), sys::Errno>) {
        let mut groups = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        groups.retain(|(gid, lid)| leave(*gid, *lid).is_err());
    }
}

pub(super) fn raw_gid(gid: Gid) -> sys::ibv_gid {
    let mut raw = sys::ibv_gid::zeroed();
    raw.raw = gid.bytes();
    raw
}

impl QueuePair<Ud> {
    /// Receives what is sent to a group, from now until [`leave_group`](Self::leave_group) or its end. The group is one that this port has
    /// joined ([`cm::Group`](crate::cm::Group)); over InfiniBand `lid` is the group's local identifier, elsewhere 0. Being in it already is no error.
    ///
    /// # Errors
    /// [`Error::Call`]: `EINVAL` for what is no address of a group, `ENOMEM` where the device has no more.
    #[doc(alias = "ibv_attach_mcast")]
    pub fn join_group(&self, gid: Gid, lid: u16) -> Result<()> {
        let mut groups = self.groups().0.lock().unwrap_or_else(PoisonError::into_inner);
        if groups.contains(&(gid, lid)) {
            return Ok(());
        }
        let raw = raw_gid(gid);
        // SAFETY: the queue pair is alive, the address a local.
        let answer = unsafe {
            (self.protection_domain().table().ibv_attach_mcast)(self.as_raw(), &raw const raw, lid)
        };
        sys::Errno::check(answer).map_err(|errno| self.group_error("ibv_attach_mcast", gid, errno))?;
        groups.push((gid, lid));
        Ok(())
    }

    /// Receives no more of what is sent to a group.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a group that it is not in; [`Error::Call`] from the device: it is in it still.
    #[doc(alias = "ibv_detach_mcast")]
    pub fn leave_group(&self, gid: Gid, lid: u16) -> Result<()> {
        let mut groups = self.groups().0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(place) = groups.iter().position(|known| *known == (gid, lid)) else {
            let cause = format!("queue pair {:#x} is not in {gid}", self.number());
            return Err(Error::invalid("group", cause, "name it as it was joined"));
        };
        let raw = raw_gid(gid);
        // SAFETY: the queue pair is alive, the address a local.
        let answer = unsafe {
            (self.protection_domain().table().ibv_detach_mcast)(self.as_raw(), &raw const raw, lid)
        };
        sys::Errno::check(answer).map_err(|errno| self.group_error("ibv_detach_mcast", gid, errno))?;
        groups.remove(place);
        Ok(())
    }

    fn group_error(&self, call: &'static str, gid: Gid, errno: sys::Errno) -> Error {
        let device = self.protection_domain().context().name();
        Error::call(call, format_args!("queue pair {:#x} of {device} and {gid}", self.number()), errno.0)
    }
}
