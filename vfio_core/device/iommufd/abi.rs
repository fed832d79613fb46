// SPDX-License-Identifier: GPL-2.0

//! The callbacks by which a driver binds its device to an iommufd and attaches it. All of them are
//! called with the lock of the device's set held, which the guard proves.

use kernel::{
    error::to_result,
    ffi::c_int,
    prelude::*, //
};
use kernel_ext::{
    bindings,
    compat::EOPNOTSUPP,
    iommufd::Context, //
};

use super::set::{
    AddressSpace,
    Opened,
    SetGuard, //
};

/// A token by which userspace shows that it may use a device: a UUID.
pub(super) type Token = [u8; 16];

const _: () = assert!(size_of::<Token>() == size_of::<bindings::uuid_t>());

/// Returns the error in the result of a driver. As in C, only zero is success.
fn success(ret: c_int) -> Result {
    match ret {
        1.. => Err(EINVAL),
        _ => to_result(ret),
    }
}

impl SetGuard<'_> {
    /// Binds the device to `context`. Returns the id of its object.
    ///
    /// # Errors
    ///
    /// Returns `EINVAL` if the driver does not support it; or the driver's error.
    ///
    /// # Safety
    ///
    /// The device is neither bound nor open. The caller unbinds it after it is closed.
    pub(super) unsafe fn bind_iommufd(&mut self, context: &Context) -> Result<u32> {
        let bind = self.device().ops().bind_iommufd.ok_or(EINVAL)?;
        let mut id = 0;
        // SAFETY: The set's lock is held. By this function's contract.
        let ret = unsafe { bind(self.device().as_ptr(), context.as_ptr(), &mut id) };
        success(ret).map(|()| id)
    }

    /// Unbinds the device, and detaches it before.
    ///
    /// # Safety
    ///
    /// The device is bound and closed.
    pub(super) unsafe fn unbind_iommufd(&mut self) {
        if let Some(unbind) = self.device().ops().unbind_iommufd {
            // SAFETY: The set's lock is held. By this function's contract.
            unsafe { unbind(self.device().as_ptr()) }
        }
    }

    /// Checks that `opened` is of this device, and that the device is open in an iommufd.
    ///
    /// # Errors
    ///
    /// Returns `EINVAL` if that isn't the case.
    fn check_bound(&self, opened: &Opened) -> Result {
        match opened.space() {
            AddressSpace::Iommufd(_) if opened.is_of(self.device()) => Ok(()),
            _ => Err(EINVAL),
        }
    }

    /// Attaches the device, which is open, to the object `id`. May change `id`.
    ///
    /// # Errors
    ///
    /// Returns `EINVAL` if the device is not bound or the driver does not support it; or the
    /// driver's error.
    pub(crate) fn attach_ioas(&mut self, opened: &Opened, id: &mut u32) -> Result {
        self.check_bound(opened)?;
        let attach = self.device().ops().attach_ioas.ok_or(EINVAL)?;
        // SAFETY: The set's lock is held, and the device is bound.
        let ret = unsafe { attach(self.device().as_ptr(), id) };
        success(ret)
    }

    /// Detaches the device, which is open, if it is bound.
    pub(super) fn detach_ioas(&mut self, opened: &Opened) {
        let detach = self.device().ops().detach_ioas;
        if let (Some(detach), Ok(())) = (detach, self.check_bound(opened)) {
            // SAFETY: The set's lock is held, and the device is bound.
            unsafe { detach(self.device().as_ptr()) }
        }
    }

    /// Attaches requests of the device with `pasid` to the object `id`. May change `id`.
    ///
    /// # Errors
    ///
    /// Returns `EINVAL` if the device is not bound; `EOPNOTSUPP` if the driver does not support it;
    /// or the driver's error.
    pub(super) fn attach_pasid(&mut self, opened: &Opened, pasid: u32, id: &mut u32) -> Result {
        self.check_bound(opened)?;
        let attach = self.device().ops().pasid_attach_ioas.ok_or(EOPNOTSUPP)?;
        // SAFETY: The set's lock is held, and the device is bound.
        let ret = unsafe { attach(self.device().as_ptr(), pasid, id) };
        success(ret)
    }

    /// Detaches requests of the device with `pasid`, if it is bound.
    pub(super) fn detach_pasid(&mut self, opened: &Opened, pasid: u32) {
        let detach = self.device().ops().pasid_detach_ioas;
        if let (Some(detach), Ok(())) = (detach, self.check_bound(opened)) {
            // SAFETY: The set's lock is held, and the device is bound.
            unsafe { detach(self.device().as_ptr(), pasid) }
        }
    }

    /// Returns whether the driver accepts `token`, or none.
    ///
    /// # Errors
    ///
    /// Returns the driver's error; `EINVAL` if `token` is `Some`, and the driver does not take any;
    /// `EFAULT` if the token could not be read, and the driver wants it.
    pub(super) fn match_token(&mut self, token: Option<Result<Token>>) -> Result {
        let Some(match_) = self.device().ops().match_token_uuid else {
            return if token.is_some() { Err(EINVAL) } else { Ok(()) };
        };
        let token = token.transpose()?;
        let token = token
            .as_ref()
            .map_or(core::ptr::null(), core::ptr::from_ref);
        // SAFETY: The set's lock is held. The pointer is null or to a UUID, which has no alignment.
        let ret = unsafe { match_(self.device().as_ptr(), token.cast()) };
        success(ret)
    }
}
