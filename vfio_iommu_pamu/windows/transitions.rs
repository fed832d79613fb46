// SPDX-License-Identifier: GPL-2.0

//! Tests of every event in every state: the hardware always agrees with the address space.

use super::*;

/// The size of a window. The aperture has 8 windows, and the machine has 3 banks.
const SIZE: u64 = 0x1000;
const COUNT: u32 = 8;
const BANKS: u32 = 3;

/// A model of the hardware.
struct ModelHardware {
    windows: [Option<(u32, Prot)>; COUNT as usize],
    enabled: bool,
    inconsistent: bool,
}

impl WindowHardware<u32> for ModelHardware {
    fn set(&mut self, window: u32, content: &Window<u32>) {
        let former = self.windows[window as usize].replace((content.order, content.prot));
        self.inconsistent |= former.is_some();
    }

    fn clear(&mut self, window: u32) {
        self.inconsistent |= self.windows[window as usize].take().is_none();
    }

    fn enable(&mut self) {
        self.inconsistent |= self.enabled;
        self.enabled = true;
    }

    fn disable(&mut self) {
        self.inconsistent |= !self.enabled || self.windows.iter().any(Option::is_some);
        self.enabled = false;
    }
}

/// Defines an enum, and the list of all its values.
macro_rules! listed {
    ($(#[$meta:meta])* enum $name:ident in $list:ident {
        $($(#[$value_meta:meta])* $value:ident,)*
    }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        enum $name {
            $($(#[$value_meta])* $value,)*
        }

        use $name::*;

        const $list: &[$name] = &[$($value,)*];
    };
}

listed! {
    /// All states that differ in what may happen next.
    enum SpaceState in STATES {
        /// Nothing was set.
        Fresh,
        /// Nothing was set, except that the kernel maps the banks.
        FreshImplicit,
        GeometrySet,
        GeometryImplicit,
        WindowsSet,
        WindowsImplicit,
        Memory,
        Bank,
        /// A bank that a device uses.
        BankUsed,
        MemoryBank,
        MemoryBankUsed,
        /// Memory and the banks that the kernel mapped.
        Implicit,
        ImplicitUsed,
        /// No memory any more, but a bank that the kernel mapped and that a device uses.
        Left,
    }
}

listed! {
    /// The events.
    enum Event in EVENTS {
        SetGeometry,
        SetWindows,
        SetImplicit,
        SetExplicit,
        /// Memory at windows 0 and 1.
        MapLow,
        /// Memory at the last window.
        MapHigh,
        /// Bank 0 at window 5, where the kernel also maps it.
        MapBank,
        /// All banks starting at window 5, chosen by the kernel.
        MapBanks,
        /// A bank that doesn't exist.
        MapNoBank,
        UnmapAll,
        /// Windows 0 and half of window 1.
        UnmapCut,
        UnmapBank,
        UseBank,
        ReleaseBank,
    }
}

/// Returns the effect of an event in a state: the next state, or an error.
fn expected(state: SpaceState, event: Event) -> Result<SpaceState> {
    let implicit = matches!(
        state,
        FreshImplicit | GeometryImplicit | WindowsImplicit | Implicit | ImplicitUsed | Left
    );
    let in_use = matches!(
        state,
        Memory | Bank | BankUsed | MemoryBank | MemoryBankUsed | Implicit | ImplicitUsed | Left
    );
    let unset = matches!(state, Fresh | FreshImplicit);
    let no_windows = unset || matches!(state, GeometrySet | GeometryImplicit);
    Ok(match (event, state) {
        (SetGeometry | SetWindows | SetImplicit | SetExplicit, _) if in_use => return Err(EBUSY),
        (SetGeometry, _) if implicit => GeometryImplicit,
        (SetGeometry, _) => GeometrySet,
        (SetWindows, _) if unset => return Err(EINVAL),
        (SetWindows, _) if implicit => WindowsImplicit,
        (SetWindows, _) => WindowsSet,
        (SetImplicit, Fresh | FreshImplicit) => FreshImplicit,
        (SetImplicit, GeometrySet | GeometryImplicit) => GeometryImplicit,
        (SetImplicit, _) => WindowsImplicit,
        (SetExplicit, Fresh | FreshImplicit) => Fresh,
        (SetExplicit, GeometrySet | GeometryImplicit) => GeometrySet,
        (SetExplicit, _) => WindowsSet,

        (MapNoBank, _) => return Err(ENODEV),
        (ReleaseBank, BankUsed) => Bank,
        (ReleaseBank, MemoryBankUsed) => MemoryBank,
        (ReleaseBank, ImplicitUsed) => Implicit,
        (ReleaseBank, Left) => WindowsImplicit,
        (ReleaseBank, other) => other,
        (_, _) if no_windows => return Err(EINVAL),

        (MapLow, WindowsSet) => Memory,
        (MapLow, WindowsImplicit) => Implicit,
        (MapLow, Bank) => MemoryBank,
        (MapLow, BankUsed) => MemoryBankUsed,
        (MapLow, Left) => ImplicitUsed,
        (MapLow, _) => return Err(EEXIST),
        (MapHigh, WindowsSet) => Memory,
        (MapHigh, Bank) => MemoryBank,
        (MapHigh, BankUsed) => MemoryBankUsed,
        (MapHigh, Memory | MemoryBank | MemoryBankUsed) => state,
        (MapHigh, _) => return Err(EEXIST),
        (MapBank | MapBanks, _) if implicit => return Err(EINVAL),
        (MapBank | MapBanks, WindowsSet) => Bank,
        (MapBank | MapBanks, Memory) => MemoryBank,
        (MapBank | MapBanks, _) => return Err(EEXIST),

        (UnmapAll, BankUsed | MemoryBankUsed) => return Err(EBUSY),
        (UnmapAll, Memory | Bank | MemoryBank) => WindowsSet,
        (UnmapAll, Implicit) => WindowsImplicit,
        (UnmapAll, ImplicitUsed) => Left,
        (UnmapAll, other) => other,
        (UnmapCut, Memory | MemoryBank | MemoryBankUsed | Implicit | ImplicitUsed) => {
            return Err(EINVAL)
        }
        (UnmapCut, other) => other,
        (UnmapBank, Bank) => WindowsSet,
        (UnmapBank, MemoryBank) => Memory,
        (UnmapBank, BankUsed | MemoryBankUsed) => return Err(EBUSY),
        (UnmapBank, _) => return Err(EINVAL),

        (UseBank, Bank | BankUsed) => BankUsed,
        (UseBank, MemoryBank | MemoryBankUsed) => MemoryBankUsed,
        (UseBank, Implicit | ImplicitUsed) => ImplicitUsed,
        (UseBank, Left) => Left,
        (UseBank, _) => return Err(EINVAL),
    })
}

/// Returns another state, and the event that leads from it to this one.
fn origin(state: SpaceState) -> Option<(SpaceState, Event)> {
    Some(match state {
        Fresh => return None,
        FreshImplicit => (Fresh, SetImplicit),
        GeometrySet => (Fresh, SetGeometry),
        GeometryImplicit => (FreshImplicit, SetGeometry),
        WindowsSet => (GeometrySet, SetWindows),
        WindowsImplicit => (GeometryImplicit, SetWindows),
        Memory => (WindowsSet, MapLow),
        Bank => (WindowsSet, MapBank),
        BankUsed => (Bank, UseBank),
        MemoryBank => (Memory, MapBank),
        MemoryBankUsed => (MemoryBank, UseBank),
        Implicit => (WindowsImplicit, MapLow),
        ImplicitUsed => (Implicit, UseBank),
        Left => (ImplicitUsed, UnmapAll),
    })
}

/// Returns memory for the windows at an address: for each the number of the next one.
fn memory(
    space: &AddressSpace<u32>,
    iova: u64,
    size: u64,
    access: Access,
) -> Result<SpanMemory<u32>> {
    let mut number = (iova / SIZE) as u32;
    SpanMemory::new(space.check_memory(iova, size)?, access.into(), |_| {
        number += 1;
        Ok(number)
    })
}

/// An address space with its hardware.
struct Machine {
    space: AddressSpace<u32>,
    model: ModelHardware,
}

impl Machine {
    fn new() -> Self {
        Self {
            space: AddressSpace::new(16, BANKS),
            model: ModelHardware {
                windows: [None; COUNT as usize],
                enabled: false,
                inconsistent: false,
            },
        }
    }

    /// Returns a machine in `state`, reached by a sequence of events.
    fn in_state(state: SpaceState) -> Result<Self> {
        let Some((former, event)) = origin(state) else {
            return Ok(Self::new());
        };
        let mut machine = Self::in_state(former)?;
        machine.apply(event)?;
        Ok(machine)
    }

    fn apply(&mut self, event: Event) -> Result {
        let Self { space, model } = self;
        let all = u64::from(COUNT) * SIZE;
        match event {
            SetGeometry => space.set_aperture(Aperture::of_size(0, all)?)?,
            SetWindows => {
                space.new_windows(COUNT)?.set();
            }
            SetImplicit => space.set_policy(Policy::Implicit)?,
            SetExplicit => space.set_policy(Policy::Explicit)?,
            MapLow => {
                let memory = memory(space, 0, 2 * SIZE, Access::Read)?;
                let mapped = space.free_windows(0, 2 * SIZE)?.map(memory, model);
                assert!(mapped.is_ok());
            }
            MapHigh => {
                let memory = memory(space, 7 * SIZE, SIZE, Access::Write)?;
                let mapped = space.free_windows(7 * SIZE, SIZE)?.map(memory, model);
                assert!(mapped.is_ok());
            }
            MapBank => {
                let free = space.free_doorbell(0, 5 * SIZE)?;
                free.map(&[0], Access::Write.into(), model)?;
            }
            MapBanks => {
                let free = space.free_doorbells(5 * SIZE, 2 * SIZE)?;
                let banks = free.choose_banks()?;
                free.map(&banks, Access::Write.into(), model)?;
            }
            MapNoBank => {
                space.free_doorbell(BANKS, 5 * SIZE)?;
            }
            UnmapAll | UnmapCut => {
                let size = if event == UnmapAll {
                    u64::MAX
                } else {
                    SIZE + SIZE / 2
                };
                if let Some(unmapped) = space.check_unmap(0, size)? {
                    space.unmap(unmapped.first, unmapped.last, model);
                    self.free_unmapped();
                }
            }
            UnmapBank => {
                let window = space.check_unmap_bank(5 * SIZE)?;
                space.unmap(window, window, model);
            }
            UseBank => {
                space.use_bank(Some(0))?;
            }
            ReleaseBank => space.release_bank(0, model),
        }
        Ok(())
    }

    /// Frees the memory of all windows that were unmapped.
    fn free_unmapped(&mut self) {
        for window in 0..COUNT {
            self.space.take_unmapped(window);
        }
    }

    /// Returns the state, derived from what is visible of it.
    fn state(&self) -> SpaceState {
        let space = &self.space;
        let implicit = space.policy() == Policy::Implicit;
        let used = space.iter().any(|(_, used)| used.users() != 0);
        match (space.memory != 0, space.mapped_banks != 0) {
            (true, true) if implicit && used => ImplicitUsed,
            (true, true) if implicit => Implicit,
            (true, true) if used => MemoryBankUsed,
            (true, true) => MemoryBank,
            (true, false) => Memory,
            (false, true) if implicit => Left,
            (false, true) if used => BankUsed,
            (false, true) => Bank,
            (false, false) => match (space.aperture, space.layout, implicit) {
                (None, _, false) => Fresh,
                (None, _, true) => FreshImplicit,
                (_, None, false) => GeometrySet,
                (_, None, true) => GeometryImplicit,
                (_, Some(_), false) => WindowsSet,
                (_, Some(_), true) => WindowsImplicit,
            },
        }
    }

    /// Checks that the hardware agrees with the space.
    fn check_hardware(&self) {
        assert!(!self.model.inconsistent);
        assert_eq!(self.model.enabled, self.space.in_use());
        for window in 0..COUNT {
            let shown = self.model.windows[window as usize];
            let used = self.space.window(window).ok().and_then(|(_, used)| used);
            assert_eq!(shown, used.map(|used| (used.order, used.prot)));
        }
    }

    /// Returns the content of each window.
    fn contents(&self) -> [Option<(u32, u32)>; COUNT as usize] {
        let mut contents = [None; COUNT as usize];
        for (window, used) in self.space.iter() {
            contents[window as usize] = Some(match used.target {
                Target::Memory(memory) => (0, memory),
                Target::Bank { bank, users, .. } => (1 + users, bank),
            });
        }
        contents
    }
}

#[kunit_tests(vfio_pamu_windows)]
mod tests {
    use super::*;

    #[test]
    fn every_transition_in_every_state() -> Result {
        for &state in STATES {
            for &event in EVENTS {
                let mut machine = Machine::in_state(state)?;
                assert_eq!(machine.state(), state);
                let before = machine.contents();
                let result = machine.apply(event);
                let expected = expected(state, event);
                if result.map(|()| machine.state()) != expected {
                    pr_err!("{:?} in {:?}: not {:?}\n", event, state, expected);
                }
                assert_eq!(result.map(|()| machine.state()), expected);
                if result.is_err() {
                    assert_eq!(machine.state(), state);
                    assert_eq!(machine.contents(), before);
                }
                machine.check_hardware();
            }
        }
        Ok(())
    }

    #[test]
    fn every_pair_of_transitions() -> Result {
        for &state in STATES {
            for &first in EVENTS {
                for &second in EVENTS {
                    let mut machine = Machine::in_state(state)?;
                    for event in [first, second] {
                        let before = machine.contents();
                        if machine.apply(event).is_err() {
                            assert_eq!(machine.contents(), before);
                        }
                        machine.check_hardware();
                    }
                    machine.space.unmap_all(&mut machine.model);
                    machine.free_unmapped();
                    assert!(!machine.space.has_content());
                    machine.check_hardware();
                    assert!(!machine.model.enabled);
                }
            }
        }
        Ok(())
    }

    #[test]
    fn banks_are_used_by_number_and_only_if_writable() -> Result {
        let mut machine = Machine::in_state(WindowsSet)?;
        let Machine { space, model } = &mut machine;
        let free = space.free_doorbell(2, SIZE)?;
        free.map(&[2], Access::Read.into(), model)?;
        let free = space.free_doorbell(1, 4 * SIZE)?;
        free.map(&[1], Access::Write.into(), model)?;
        assert_eq!(space.use_bank(Some(2)), Err(EINVAL));
        assert_eq!(space.use_bank(Some(0)), Err(EINVAL));
        assert_eq!(space.use_bank(Some(1)), Ok((1, 4 * SIZE)));
        assert_eq!(space.use_bank(None), Ok((1, 4 * SIZE)));
        assert_eq!(space.check_unmap_bank(4 * SIZE), Err(EBUSY));
        space.release_bank(1, model);
        assert_eq!(space.check_unmap_bank(4 * SIZE), Err(EBUSY));
        space.release_bank(1, model);
        assert_eq!(space.check_unmap_bank(4 * SIZE), Ok(4));
        assert_eq!(space.free_doorbell(1, 5 * SIZE).err(), Some(EEXIST));
        assert_eq!(space.free_doorbell(0, 5 * SIZE + 1).err(), Some(EINVAL));
        for banks in [&[1][..], &[0, 2], &[]] {
            let free = space.free_doorbell(0, 5 * SIZE)?;
            assert!(free.map(banks, Access::Write.into(), model).is_err());
        }
        Ok(())
    }

    #[test]
    fn kernel_chooses_free_banks() -> Result {
        let mut machine = Machine::in_state(WindowsSet)?;
        let Machine { space, model } = &mut machine;
        let free = space.free_doorbell(1, 0)?;
        free.map(&[1], Access::Write.into(), model)?;
        let free = space.free_doorbells(3 * SIZE, 2 * SIZE)?;
        assert_eq!(&free.choose_banks()?[..], &[0, 2]);
        let free = space.free_doorbells(3 * SIZE, 3 * SIZE)?;
        assert_eq!(free.choose_banks().err(), Some(ENOSPC));
        Ok(())
    }

    #[test]
    fn memory_is_mapped_at_its_own_windows() -> Result {
        let mut machine = Machine::in_state(WindowsSet)?;
        let Machine { space, model } = &mut machine;
        for (iova, size) in [(SIZE, SIZE), (0, SIZE), (0, 3 * SIZE)] {
            let memory = memory(space, 0, 2 * SIZE, Access::Read)?;
            assert!(space.free_windows(iova, size)?.map(memory, model).is_err());
        }
        assert!(!space.in_use() && !model.enabled);
        Ok(())
    }

    #[test]
    fn implicit_banks_need_windows() -> Result {
        for count in [1, 2, 4, 8] {
            let mut machine = Machine::in_state(GeometryImplicit)?;
            machine.space.new_windows(count)?.set();
            let room = machine.space.check_memory(0, SIZE);
            assert_eq!(room.err(), (count <= BANKS).then_some(ENOSPC));
        }
        Ok(())
    }

    /// Nothing takes the place of memory that is still to be freed.
    #[test]
    fn windows_are_free_when_their_memory_is() -> Result {
        let mut machine = Machine::in_state(Memory)?;
        let Machine { space, model } = &mut machine;
        space.unmap(0, 1, model);
        assert!(!space.in_use() && !model.enabled);
        for (event, error) in [(MapLow, EEXIST), (SetWindows, EBUSY), (SetGeometry, EBUSY)] {
            assert_eq!(machine.apply(event), Err(error));
        }
        let Machine { space, .. } = &mut machine;
        assert_eq!(space.take_unmapped(0), Some(1));
        assert_eq!(space.take_unmapped(0), None);
        assert_eq!(space.check_memory(0, 2 * SIZE).err(), Some(EEXIST));
        assert_eq!(space.take_unmapped(1), Some(2));
        assert_eq!(machine.apply(MapLow), Ok(()));
        Ok(())
    }

    #[test]
    fn unmapping_counts_mapped_bytes() -> Result {
        let mut machine = Machine::in_state(MemoryBank)?;
        for (iova, size, expected) in [
            (0, 8 * SIZE, Ok(Some((0, 5, 3 * SIZE)))),
            (0, SIZE, Ok(Some((0, 0, SIZE)))),
            (SIZE, SIZE, Ok(Some((1, 1, SIZE)))),
            (2 * SIZE, 2 * SIZE, Ok(None)),
            (5 * SIZE, SIZE, Ok(Some((5, 5, SIZE)))),
            (0, SIZE - 1, Err(EINVAL)),
            (1, SIZE, Err(EINVAL)),
            (0, 0, Err(EINVAL)),
            (SIZE, u64::MAX, Err(EINVAL)),
            (u64::MAX, 1, Ok(None)),
        ] {
            let found = machine.space.check_unmap(iova, size);
            let found = found.map(|found| found.map(|u| (u.first, u.last, u.bytes)));
            assert_eq!(found, expected);
        }
        let Machine { space, model } = &mut machine;
        space.unmap(1, 1, model);
        assert_eq!(machine.contents()[..3], [Some((0, 1)), None, None]);
        machine.check_hardware();
        Ok(())
    }
}
