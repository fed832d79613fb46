// SPDX-License-Identifier: GPL-2.0

//! The PAMUs of a system with the tables that they read, the registered system and the module of
//! its driver, and the LIODNs that nothing isolates.

use core::ops::Deref;

use kernel::{
    prelude::*,
    sync::{
        atomic::{
            Acquire,
            Atomic,
            Relaxed,
            Release, //
        },
        global_lock,
        Arc, //
    }, //
};

use kernel_ext::{
    compat::this_module,
    module::ModuleRef, //
};

use crate::{
    pamu::Pamu,
    tables::Tables, //
};

use super::System;

/// LIODNs that may access all memory while they are neither blocked nor claimed.
///
/// # Invariants
///
/// While these LIODNs are neither blocked nor claimed, the kernel controls what their devices
/// access.
#[derive(Clone, Copy)]
pub struct OpenLiodns<'a>(&'a [u32]);

impl<'a> OpenLiodns<'a> {
    /// No LIODN.
    pub const NONE: Self = Self(&[]);

    /// Returns these LIODNs as open.
    ///
    /// # Safety
    ///
    /// While a LIODN is neither blocked nor claimed, the devices with this LIODN access only memory
    /// that they may access by its physical address.
    pub unsafe fn new(liodns: &'a [u32]) -> Self {
        // INVARIANT: By the contract of this function.
        Self(liodns)
    }

    /// Copies the list.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn to_owned(self) -> Result<Openable> {
        let mut numbers = KVec::new();
        numbers.extend_from_slice(self.0, GFP_KERNEL)?;
        // INVARIANT: By the type invariant.
        Ok(Openable(numbers))
    }
}

/// An owned list of [`OpenLiodns`], with the same invariant.
pub(super) struct Openable(KVec<u32>);

impl Deref for Openable {
    type Target = [u32];

    fn deref(&self) -> &[u32] {
        &self.0
    }
}

/// PAMUs and the tables that they read while they are enabled. Dropping this disables them.
pub(crate) struct Pamus {
    pamus: KVec<Arc<dyn Pamu>>,
    tables: Arc<Tables>,
}

impl Pamus {
    /// Returns these PAMUs, which are not enabled yet.
    ///
    /// # Errors
    ///
    /// `EBUSY` if other PAMUs have the tables.
    pub(crate) fn new(pamus: KVec<Arc<dyn Pamu>>, tables: Arc<Tables>) -> Result<Self> {
        tables.claim()?;
        Ok(Self { pamus, tables })
    }

    /// Returns the tables.
    pub(super) fn tables(&self) -> &Arc<Tables> {
        &self.tables
    }

    /// Sets the tables of a PAMU and enables it.
    pub(crate) fn enable(&self, number: usize) {
        // SAFETY: This value has a reference to the tables, and disables the PAMU when it is
        // dropped, before that reference.
        unsafe { self.pamus[number].enable(&self.tables) };
    }
}

impl Deref for Pamus {
    type Target = [Arc<dyn Pamu>];

    fn deref(&self) -> &Self::Target {
        &self.pamus
    }
}

impl Drop for Pamus {
    fn drop(&mut self) {
        for pamu in &self.pamus {
            pamu.disable();
        }
    }
}

/// What is registered: the PAMUs, and the module of their driver.
///
/// # Invariants
///
/// The module isn't freed as long as this is registered, unless the module is this one.
struct Registered {
    system: Arc<System>,
    owner: &'static ThisModule,
}

global_lock! {
    /// The PAMUs of this machine, or `None`.
    unsafe(uninit) static REGISTERED: Mutex<Option<Registered>> = None;
}

/// The number of [`SystemRef`]s.
static REFERENCES: Atomic<i32> = Atomic::new(0);

/// Initializes the lock.
///
/// # Safety
///
/// Neither this function nor any other function of this file was called before.
pub(crate) unsafe fn init_lock() {
    // SAFETY: By the contract of this function.
    unsafe { REGISTERED.init() };
}

/// The registration of the PAMUs of this machine. [`SystemRef::get`] finds them as long as this
/// lives. Dropping it unregisters the PAMUs and then disables them: containers may keep the tables
/// alive, but the registers may go away.
pub struct Registration(Arc<System>);

impl Registration {
    /// Registers the PAMUs that `create` returns, unless there are PAMUs already. `owner` is the
    /// module of their driver. It stays loaded while a container uses the PAMUs.
    ///
    /// # Errors
    ///
    /// `EBUSY` if there are PAMUs already, or if there is a [`SystemRef`] to earlier ones: a program
    /// may control the devices whose LIODNs are then claimed in those only; and those of `create`.
    ///
    /// # Safety
    ///
    /// - The implementations of [`Pamu`] are code of `owner`, or of a module
    ///   that can't be freed before `owner`.
    /// - The registration is dropped before `owner` is freed. It isn't forgotten.
    pub unsafe fn new(
        owner: &'static ThisModule,
        create: impl FnOnce() -> Result<Arc<System>>,
    ) -> Result<Self> {
        let mut registered = REGISTERED.lock();
        // The count doesn't rise while nothing is registered.
        if registered.is_some() || REFERENCES.load(Acquire) != 0 {
            return Err(EBUSY);
        }
        let system = create()?;
        // INVARIANT: By the contract of this function.
        *registered = Some(Registered {
            system: system.clone(),
            owner,
        });
        Ok(Self(system))
    }

    /// Registers PAMUs whose driver is part of this module, as [`new`](Self::new) does.
    ///
    /// # Errors
    ///
    /// Those of [`new`](Self::new).
    pub(crate) fn of_this_module(create: impl FnOnce() -> Result<Arc<System>>) -> Result<Self> {
        // SAFETY: A system of this module consists of PAMUs of this module, because only their
        // driver calls this. A registration that is never dropped does no harm: `REGISTERED` is
        // freed together with this module.
        unsafe { Self::new(this_module::<crate::LocalModule>(), create) }
    }

    /// Returns whether there is a [`SystemRef`].
    pub(crate) fn is_in_use(&self) -> bool {
        let _registered = REGISTERED.lock();
        REFERENCES.load(Acquire) != 0
    }

    /// Returns the PAMUs.
    pub fn system(&self) -> &Arc<System> {
        &self.0
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let registered = REGISTERED.lock().take();
        drop(registered);
        self.0.disable();
    }
}

/// A reference to the registered PAMUs, which also keeps the module of their driver loaded.
pub struct SystemRef {
    // Fields are dropped in order.
    system: Arc<System>,
    _counted: Counted,
    // Dropped last: the PAMUs are code of this module.
    _owner: ModuleRef,
}

/// A reference that [`REFERENCES`] counts.
struct Counted(());

impl Counted {
    /// Counts a reference. The caller holds the lock of `REGISTERED`.
    fn new() -> Self {
        REFERENCES.fetch_add(1, Relaxed);
        Self(())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        // Orders the end of the use of the PAMUs before the registration of others.
        REFERENCES.fetch_sub(1, Release);
    }
}

impl SystemRef {
    /// Returns the PAMUs of this machine. Returns `None` if there are none, or if the module of
    /// their driver is being unloaded.
    pub fn get() -> Option<Self> {
        let registered = REGISTERED.lock();
        let Registered { system, owner } = registered.as_ref()?;
        // SAFETY: By the type invariant the owner isn't freed before it was unregistered. That
        // takes the lock, which is held here.
        let owner = unsafe { ModuleRef::try_get(owner.as_ptr()) }?;
        Some(Self {
            system: system.clone(),
            _counted: Counted::new(),
            _owner: owner,
        })
    }
}

impl Deref for SystemRef {
    type Target = Arc<System>;

    fn deref(&self) -> &Arc<System> {
        &self.system
    }
}
