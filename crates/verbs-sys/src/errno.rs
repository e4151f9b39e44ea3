//! The error number of a failed call, and the five ways in which verbs give one.
//!
//! Called by the inlines of this crate and by whoever calls a function of a table. The C interface is not consistent: most
//! functions return the number, some return -1 and set `errno`, some return it negated, those that return a pointer set `errno`.
//! Nothing here waits, allocates or touches the device.
#![allow(unsafe_code)]

use core::ffi::c_int;

/// An error number of the system, as `EINVAL`. Never zero in an error that this crate returns.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(transparent)]
pub struct Errno(pub c_int);

impl Errno {
    /// What the device, its driver or the library cannot do.
    pub const NOT_SUPPORTED: Self = Self(libc::EOPNOTSUPP);
    /// An argument is wrong.
    pub const INVALID: Self = Self(libc::EINVAL);
    /// A failure that came without a number.
    pub const UNKNOWN: Self = Self(libc::EIO);

    /// The calling thread's `errno`, or [`UNKNOWN`](Self::UNKNOWN) when it is zero.
    #[must_use]
    pub fn last() -> Self {
        // SAFETY: the C library's own accessor; the place lives as long as the thread.
        let number = unsafe { *libc::__errno_location() };
        if number > 0 { Self(number) } else { Self::UNKNOWN }
    }

    /// Sets the calling thread's `errno`, for those who fill a table.
    pub fn set(self) {
        // SAFETY: the C library's own accessor; the place lives as long as the thread.
        unsafe { *libc::__errno_location() = self.0 };
    }

    /// Judges what a function returned that answers 0 for success.
    ///
    /// A positive number is the error. -1 means that `errno` has it. Another negative number is the error negated, as some
    /// drivers return.
    ///
    /// # Errors
    /// For every number but 0.
    #[inline]
    pub fn check(returned: c_int) -> Result<(), Self> {
        if returned == 0 { Ok(()) } else { Err(Self::of_failure(returned)) }
    }

    /// Judges what a function returned that answers a count, or a negative number for a failure whose cause is in `errno` (-1)
    /// or is the number negated.
    ///
    /// # Errors
    /// For every negative number.
    #[inline]
    pub fn check_count(returned: isize) -> Result<usize, Self> {
        match usize::try_from(returned) {
            Ok(count) => Ok(count),
            Err(_) => Err(Self::of_failure(c_int::try_from(returned).unwrap_or(-1))),
        }
    }

    /// Judges what a function returned that answers an object, or null and `errno`.
    ///
    /// # Errors
    /// For null.
    #[inline]
    pub fn check_pointer<T>(returned: *mut T) -> Result<*mut T, Self> {
        if returned.is_null() { Err(Self::last()) } else { Ok(returned) }
    }

    #[cold]
    pub(crate) fn of_failure(returned: c_int) -> Self {
        match returned {
            -1 => Self::last(),
            1.. => Self(returned),
            _ => Self(returned.checked_neg().unwrap_or(libc::EIO)),
        }
    }
}

impl core::fmt::Display for Errno {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        std::io::Error::from_raw_os_error(self.0).fmt(f)
    }
}

impl core::error::Error for Errno {}

impl From<Errno> for std::io::Error {
    fn from(errno: Errno) -> Self {
        Self::from_raw_os_error(errno.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_to_say_an_error_gives_its_number() {
        assert_eq!(Errno::check(0), Ok(()));
        assert_eq!(Errno::check(libc::EINVAL), Err(Errno::INVALID));
        assert_eq!(Errno::check(-libc::ENOMEM), Err(Errno(libc::ENOMEM)));
        Errno(libc::EAGAIN).set();
        assert_eq!(Errno::check(-1), Err(Errno(libc::EAGAIN)));
        assert_eq!(Errno::check_count(7), Ok(7));
        assert_eq!(Errno::check_count(-1), Err(Errno(libc::EAGAIN)));
        assert_eq!(Errno::check_count(-22), Err(Errno(libc::EINVAL)));
        assert_eq!(Errno::check_pointer(core::ptr::null_mut::<u8>()), Err(Errno(libc::EAGAIN)));
    }

    #[test]
    fn a_failure_without_a_number_is_still_an_error() {
        Errno(0).set();
        assert_eq!(Errno::check(-1), Err(Errno::UNKNOWN));
        assert_eq!(Errno::check(c_int::MIN), Err(Errno::UNKNOWN));
    }
}
