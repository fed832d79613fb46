// SPDX-License-Identifier: GPL-2.0

//! The functions that the core exports to other modules, called by a C driver.

use crate::{
    core_test::{
        ANSWER,
        Backend,
        Bare,
        CoreTest,
        ENFORCED_COHERENT,
        EXTENSION,
        HAS_DEV,
        IS_GROUP,
        IS_VALID,
        Irqs,
        NAME,
        SECOND,
        SET_FINDS_FIRST,
        SET_FINDS_SECOND,
        SET_IS_SHARED,
        SET_OPEN_SHIFT, //
    },
    env::{
        EDU,
        Setup,
        attached, //
    },
    feature::GET,
    harness::{
        Failure,
        cases, //
    },
};
use anyhow::Result;
use std::fs::File;
use vfio_client::{
    Bytes,
    Container,
    Errno,
    Interrupt,
    Iommu,
    Memory,
    PAGE_SIZE,
    raw,
    request, //
};

cases! {
    #[rows("D3")] device_ops_without_callbacks,
    #[rows("D26")] file_functions_on_group_files,
    #[rows("D26")] file_functions_on_device_files,
    #[rows("D26")] file_functions_on_other_files,
    #[rows("K7")] register_and_unregister_iommu_driver,
    #[rows("K7")] #[requires(core(Rust))] iommu_driver_needs_both_device_callbacks,
    #[rows("K8")] device_sets_are_shared_by_id,
    #[rows("K8")] device_set_lock_does_not_block_registration,
    #[rows("G20")] #[requires(core(Rust))] device_cannot_be_registered_twice,
    #[rows("D11")] next_migration_state,
    #[rows("D11")] #[requires(core(Rust))] next_migration_state_of_unsupported_state,
    #[rows("D23")] set_irqs_validate_all_arguments,
    #[rows("D24")] capability_chain,
    combine_iova_ranges,
}

fn device_ops_without_callbacks() -> Result<()> {
    let bare = Bare::open(NAME)?;
    let device = &bare.device;
    for nr in [
        request::DEVICE_GET_INFO,
        request::DEVICE_GET_REGION_INFO,
        request::DEVICE_GET_IRQ_INFO,
        request::DEVICE_SET_IRQS,
        request::DEVICE_RESET,
        request::number(150),
    ] {
        assert_eq!(raw::value(device, nr, 1), Err(Errno::EINVAL), "{nr:#x}");
    }
    assert_eq!(device.region(0).errno(), Errno::EINVAL);
    let mut byte = [0x5a];
    assert_eq!(raw::pread(device, &mut byte, 0), Err(Errno::EINVAL));
    assert_eq!(raw::pwrite(device, &byte, 0), Err(Errno::EINVAL));
    let memory = Memory::from_file(device, 0, PAGE_SIZE, true);
    assert_eq!(memory.errno(), Errno::EINVAL);
    // An unknown feature, and a feature of the core.
    for (feature, errno) in [(99, Errno::ENOTTY), (1, Errno::ENOTTY), (12, Errno::EINVAL)] {
        let mut bytes = Bytes::new().u32(16).u32(GET | feature).u64(0);
        let answer = raw::bytes(device, request::DEVICE_FEATURE, &mut bytes);
        assert_eq!(answer, Err(errno), "{feature}");
    }
    Ok(())
}

fn file_functions_on_group_files() -> Result<()> {
    let test = CoreTest::open()?;
    // The IOMMU of the test machine cannot stop devices from bypassing the caches.
    let group = crate::env::group(EDU)?;
    let of_edu = test.file(&group)?;
    assert_eq!(of_edu & !ENFORCED_COHERENT, IS_GROUP | IS_VALID);
    // The result does not depend on whether the group is in use.
    let container = Container::open()?;
    group.set_container(&container)?;
    container.set_iommu(Iommu::Type1v2)?;
    assert_eq!(test.file(&group)?, of_edu);
    let coherent = container.check_extension(4)? == 1;
    assert_eq!(of_edu & ENFORCED_COHERENT != 0, coherent);
    // The group of the driver's device contains that device. It has no IOMMU that could enforce
    // coherency.
    let own = crate::env::group(NAME)?;
    assert_eq!(test.file(&own)?, IS_GROUP | IS_VALID | HAS_DEV);
    let second = crate::env::group(SECOND)?;
    assert_eq!(test.file(&second)?, IS_GROUP | IS_VALID);
    Ok(())
}

fn file_functions_on_device_files() -> Result<()> {
    let test = CoreTest::open()?;
    let setup = Setup::new()?;
    let coherent = setup.container.check_extension(4)? == 1;
    let expected = if coherent { ENFORCED_COHERENT } else { 0 };
    assert_eq!(test.file(&setup.device)?, IS_VALID | expected);
    let bare = Bare::open(NAME)?;
    assert_eq!(
        test.file(&bare.device)?,
        IS_VALID,
        "not the file of a group"
    );
    Ok(())
}

fn file_functions_on_other_files() -> Result<()> {
    let test = CoreTest::open()?;
    let null = File::open("/dev/null")?;
    assert_eq!(test.file(&null)?, ENFORCED_COHERENT);
    assert_eq!(test.file(Container::open()?)?, ENFORCED_COHERENT);
    let eventfd = Interrupt::new()?;
    assert_eq!(test.file(&eventfd)?, ENFORCED_COHERENT);
    Ok(())
}

fn register_and_unregister_iommu_driver() -> Result<()> {
    let test = CoreTest::open()?;
    let container = Container::open()?;
    assert_eq!(container.check_extension(EXTENSION)?, 0);
    test.backend(Backend::Register)?;
    assert_eq!(test.backend(Backend::Register), Err(Errno::EINVAL));
    assert_eq!(container.check_extension(EXTENSION)?, ANSWER);
    assert_eq!(container.check_extension(3)?, 1, "type 1 answers");
    // A container with a backend asks only that backend.
    let (other, _group) = attached(EDU, Iommu::Type1v2)?;
    assert_eq!(other.check_extension(EXTENSION)?, 0);
    // The new backend's return value is passed on to the caller.
    let group = crate::env::group(NAME)?;
    group.set_container(&container)?;
    let chosen = raw::value(&container, request::SET_IOMMU, EXTENSION.into());
    assert_eq!(chosen, Err(Errno::EDOM));
    container.set_iommu(Iommu::Type1v2)?;
    test.backend(Backend::Unregister)?;
    assert_eq!(Container::open()?.check_extension(EXTENSION)?, 0);
    // Unregistering an absent backend does nothing.
    test.backend(Backend::Unregister)?;
    Ok(())
}

fn iommu_driver_needs_both_device_callbacks() -> Result<()> {
    let test = CoreTest::open()?;
    assert_eq!(test.backend(Backend::RegisterHalf), Err(Errno::EINVAL));
    assert_eq!(Container::open()?.check_extension(EXTENSION)?, 0);
    Ok(())
}

fn device_sets_are_shared_by_id() -> Result<()> {
    let test = CoreTest::open()?;
    let both = SET_IS_SHARED | SET_FINDS_FIRST | SET_FINDS_SECOND;
    assert_eq!(test.set()?, both);
    let first = Bare::open(NAME)?;
    assert_eq!(test.set()?, both | (1 << SET_OPEN_SHIFT));
    let second = Bare::open(SECOND)?;
    let again = first.group.device(NAME)?;
    assert_eq!(test.set()?, both | (3 << SET_OPEN_SHIFT));
    drop((first, second));
    assert_eq!(test.set()?, both | (1 << SET_OPEN_SHIFT));
    drop(again);
    assert_eq!(test.set()?, both);
    Ok(())
}

/// The lock of a device set is held while a driver opens or resets a device. This does not block
/// the registration of other VFIO devices.
fn device_set_lock_does_not_block_registration() -> Result<()> {
    assert_eq!(CoreTest::open()?.set_held(), Ok(0));
    Ok(())
}

fn device_cannot_be_registered_twice() -> Result<()> {
    let test = CoreTest::open()?;
    assert_eq!(test.offer(EDU), Err(Errno::EINVAL));
    // The device that was registered first keeps working.
    let setup = Setup::new()?;
    assert!(vfio_client::edu::Edu::new(&setup.device)?.is_alive());
    Ok(())
}

/// The next state on the way from each state (the rows) to each other state, from `STOP` (1) to
/// `PRE_COPY_P2P` (7), for a device that supports all states. `STOP_COPY` cannot return to a
/// pre-copy state.
const STEPS: [[u32; 7]; 7] = [
    [1, 5, 3, 4, 5, 5, 5],
    [5, 2, 5, 5, 5, 6, 5],
    [1, 1, 3, 1, 1, 0, 0],
    [1, 1, 1, 4, 1, 1, 1],
    [1, 2, 1, 1, 5, 2, 7],
    [2, 2, 7, 2, 2, 6, 7],
    [5, 5, 3, 5, 5, 6, 7],
];

/// The features that each state requires.
const NEEDS: [u32; 7] = [1, 1, 1, 1, 1 | 2, 1 | 4, 1 | 2 | 4];

/// Returns whether a device with the given features supports a state.
fn has(flags: u32, state: u32) -> bool {
    let needs = state.checked_sub(1).and_then(|i| NEEDS.get(i as usize));
    needs.is_some_and(|needs| flags & needs == *needs)
}

fn next_migration_state() -> Result<()> {
    let test = CoreTest::open()?;
    let step = |from: u32, to: u32| STEPS[from as usize - 1][to as usize - 1];
    let mut steps = 0;
    for flags in [1, 3, 5, 7] {
        for current in (1..8).filter(|state| has(flags, *state)) {
            for target in (0..64).chain([u32::MAX]) {
                let expected = if has(flags, target) {
                    let mut next = step(current, target);
                    while next != 0 && !has(flags, next) {
                        next = step(next, target);
                    }
                    Some(next).filter(|next| *next != 0)
                } else {
                    None
                };
                let answer = test.next_state(flags, current, target);
                assert_eq!(
                    answer,
                    expected.ok_or(Errno::EINVAL),
                    "features {flags}, from {current} to {target}"
                );
                steps += usize::from(answer.is_ok());
            }
        }
    }
    assert_eq!(steps, 16 + 25 + 24 + 47);
    Ok(())
}

/// The C core warns about it, since this is a driver bug.
fn next_migration_state_of_unsupported_state() -> Result<()> {
    let test = CoreTest::open()?;
    for flags in 0..8 {
        for current in (0..16).chain([u32::MAX]) {
            if !has(flags, current) {
                for target in 0..8 {
                    let answer = test.next_state(flags, current, target);
                    assert_eq!(answer, Err(Errno::EINVAL), "{flags} {current} {target}");
                }
            }
        }
    }
    Ok(())
}

/// Returns the data size if the request is valid for a device with 4 vectors of each of 2 types.
fn valid(irqs: &Irqs) -> Option<u64> {
    let each = match irqs.flags & 7 {
        1 => 0,
        2 => 1,
        4 => 4,
        _ => return None,
    };
    let end = u64::from(irqs.start) + u64::from(irqs.count);
    let bytes = u64::from(irqs.count) * each;
    (irqs.flags < 64
        && irqs.index < irqs.types
        && irqs.start < irqs.vectors
        && end <= u64::from(irqs.vectors)
        && u64::from(irqs.argsz) >= 20 + bytes
        && !(irqs.no_size && each != 0))
        .then_some(bytes)
}

fn set_irqs_validate_all_arguments() -> Result<()> {
    let test = CoreTest::open()?;
    let edges = [0, 3, 4, 5, u32::MAX];
    let mut good = 0;
    for flags in (0..=8).chain([12, 17, 33, 36, 63, 64 | 1, (1 << 31) | 1]) {
        for argsz in [19, 20, 23, 24, 35, 36] {
            for (start, count) in edges.iter().flat_map(|s| edges.map(|c| (*s, c))) {
                for (index, no_size) in [(0, false), (1, true), (2, false)] {
                    let irqs = Irqs {
                        argsz,
                        flags,
                        index,
                        start,
                        count,
                        vectors: 4,
                        types: 2,
                        no_size,
                    };
                    let answer = test.irqs(&irqs);
                    let expected = valid(&irqs).ok_or(Errno::EINVAL);
                    assert_eq!(answer.map(|size| if no_size { 0 } else { size }), expected);
                    good += usize::from(answer.is_ok());
                }
            }
        }
    }
    assert!(
        good > 50,
        "expected more than 50 valid requests, got {good}"
    );
    Ok(())
}

fn capability_chain() -> Result<()> {
    let test = CoreTest::open()?;
    for shift in [0, 24, 32] {
        let sizes = [8, 9, 24, 17];
        let chain = test.caps(&sizes, shift)?;
        assert_eq!(chain.len(), 8 + 16 + 24 + 24);
        let mut at = 0;
        for (i, size) in sizes.into_iter().enumerate() {
            let id = i as u32 + 1;
            assert_eq!(chain.get_u32(at), id | ((0x70 + i as u32) << 16));
            let content = &chain.as_ref()[at + 8..at + size as usize];
            assert!(content.iter().all(|byte| *byte == 0xc0 + i as u8));
            let next = chain.get_u32(at + 4);
            let end = at + (size as usize).next_multiple_of(8);
            if i + 1 == sizes.len() {
                assert_eq!((next, end), (0, chain.len()));
            } else {
                assert_eq!(next as usize, end + shift as usize);
            }
            at = end;
        }
    }
    Ok(())
}

/// For drivers whose hardware can track few ranges, the closest ranges are combined.
fn combine_iova_ranges() -> Result<()> {
    let test = CoreTest::open()?;
    let ranges = [(0, 9), (20, 29), (35, 39), (100, 199), (201, 300)];
    for (wanted, expected) in [
        (5, ranges.to_vec()),
        (4, vec![(0, 9), (20, 29), (35, 39), (100, 300)]),
        (3, vec![(0, 9), (20, 39), (100, 300)]),
        (2, vec![(0, 39), (100, 300)]),
        (1, vec![(0, 300)]),
    ] {
        assert_eq!(test.combine(&ranges, wanted)?, expected, "{wanted}");
    }
    // Of equal gaps the first one is closed.
    assert_eq!(
        test.combine(&[(0, 0), (8, 8), (16, 16)], 2)?,
        [(0, 8), (16, 16)]
    );
    assert_eq!(test.combine(&[(0, u64::MAX)], 1)?, [(0, u64::MAX)]);
    // No gap is too large.
    assert_eq!(
        test.combine(&[(0, 0), (u64::MAX, u64::MAX)], 1)?,
        [(0, u64::MAX)]
    );
    Ok(())
}
