// SPDX-License-Identifier: GPL-2.0

//! A network controller: processes use its virtual functions while another one uses the physical
//! function.

use super::{
    binding::{
        iommu_fd,
        merge_group, //
    },
    viable::Unbound, //
};
use crate::{
    env::{
        EDU,
        NVME,
        SHARED,
        Setup,
        attached, //
    },
    feature::{
        self,
        GET,
        PCI_VF_TOKEN,
        PROBE,
        SET, //
    },
    harness::{
        Failure,
        cases, //
    },
    helper::{
        pause,
        say, //
    },
};
use anyhow::{
    Context,
    Result,
    ensure, //
};
use std::{
    collections::BTreeSet,
    fs,
    path::Path, //
};
use support::{
    e1000e,
    helper::Helper, //
};
use vfio_client::{
    Container,
    Device,
    Errno,
    Group,
    Iommu,
    MapFlags,
    Memory,
    PAGE_SIZE,
    pci::{
        self,
        Config, //
    },
    uapi::VFIO_PCI_BAR0_REGION_INDEX, //
};

cases! {
    virtual_functions_are_created_and_removed,
    several_functions_in_one_container,
    #[requires(core(Rust))] merged_groups_have_one_domain_a_process,
    #[rows("D8")] only_physical_functions_have_tokens,
    #[rows("D8")] virtual_function_needs_token,
    #[rows("G11")] open_physical_function_with_token,
}

/// The physical function.
const WHOLE: &str = "0000:02:00.0";

const TOKEN: [u8; 16] = [
    0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff,
];
const RIGHT: &str = "vf_token=00112233-4455-6677-8899-aabbccddeeff";
const WRONG: &str = "vf_token=11112233-4455-6677-8899-aabbccddeeff";

/// Virtual functions, which exist until this is dropped. Their names are sorted.
struct Functions(Vec<String>);

impl Functions {
    fn new(count: usize) -> Result<Self> {
        pci::write_attribute(WHOLE, "sriov_numvfs", &count.to_string())?;
        let name = |i| -> Result<String> {
            let link = fs::read_link(pci::sysfs(WHOLE).join(format!("virtfn{i}")))?;
            let name = link.file_name().and_then(|name| name.to_str());
            Ok(name.context("the function has no name")?.to_owned())
        };
        Ok(Self((0..count).map(name).collect::<Result<_>>()?))
    }
}

impl Drop for Functions {
    fn drop(&mut self) {
        let _ = pci::write_attribute(WHOLE, "sriov_numvfs", "0");
    }
}

/// Opens a device by its name and additional arguments.
fn open(group: &Group, bdf: &str, more: &str) -> Result<Device, Errno> {
    let name = format!("{bdf} {more}");
    group.device(name.trim_end()).map_err(|error| error.errno())
}

fn virtual_functions_are_created_and_removed() -> Result<()> {
    let functions = Functions::new(2)?;
    for bdf in &functions.0 {
        assert_eq!(pci::driver(bdf).as_deref(), Some("vfio-pci"));
        let number = pci::group_of(bdf)?;
        ensure!(
            number != pci::group_of(WHOLE)?,
            "the function must have a group of its own"
        );
        assert!(Path::new(&format!("/dev/vfio/{number}")).exists());
    }
    let groups: Vec<_> = functions.0.iter().map(|bdf| pci::group_of(bdf)).collect();
    drop(functions);
    for number in groups {
        assert!(!Path::new(&format!("/dev/vfio/{}", number?)).exists());
    }
    // Virtual functions can be created while a process uses the physical function.
    let setup = Setup::with(WHOLE, Iommu::Type1v2)?;
    let functions = Functions::new(1)?;
    assert_eq!(functions.0.len(), 1);
    setup.device.info()?;
    Ok(())
}

fn several_functions_in_one_container() -> Result<()> {
    let setup = Setup::with(WHOLE, Iommu::Type1v2)?;
    feature::send(&setup.device, SET | PCI_VF_TOKEN, &TOKEN)?;
    let functions = Functions::new(2)?;
    let mut open_functions = Vec::new();
    for bdf in &functions.0 {
        let group = crate::env::group(bdf)?;
        group.set_container(&setup.container)?;
        let device = open(&group, bdf, RIGHT)?;
        let config = Config::of(&device)?;
        // The driver emulates what the configuration space of a function lacks.
        let ids = (config.get(pci::VENDOR)?, config.get(pci::DEVICE)?);
        assert_eq!(ids, (0x8086, 0x10ca), "{bdf}");
        config.enable()?;
        let registers = device.map_whole(VFIO_PCI_BAR0_REGION_INDEX)?;
        // The functions have the status register, with the link state, at the same offset.
        assert_ne!(registers.get(e1000e::STATUS), u32::MAX, "{bdf}");
        drop(registers);
        open_functions.push((device, group));
    }
    Ok(())
}

/// Merges the groups of devices. Returns their files and the container.
fn merge_all(devices: &[&str]) -> Result<(Vec<Group>, Container)> {
    let mut groups: Vec<(u32, Group)> = Vec::new();
    for bdf in devices {
        let number = pci::group_of(bdf)?;
        if groups.iter().any(|(other, _)| *other == number) {
            continue;
        }
        let group = crate::env::group(bdf)?;
        if let Some((_, first)) = groups.first() {
            merge_group(first, &group)?;
        }
        groups.push((number, group));
    }
    let groups: Vec<Group> = groups.into_iter().map(|(_, group)| group).collect();
    let container = iommu_fd(groups.first().context("no device")?)?;
    Ok((groups, container))
}

/// A helper that keeps the groups of devices merged.
pub(super) fn merge(devices: &[&str]) -> Result<()> {
    let _held = merge_all(devices)?;
    say("ready");
    pause();
    Ok(())
}

/// One process has three devices, another one ten. Each merges the groups of its devices, which
/// then have one domain. Debugfs shows which groups each domain has.
fn merged_groups_have_one_domain_a_process() -> Result<()> {
    let functions = Functions::new(7)?;
    let _unbound = Unbound::new()?;
    let three = [EDU, NVME, SHARED];
    let mut ten = vec![WHOLE, "0000:01:00.0", "0000:01:00.1"];
    ten.extend(functions.0.iter().map(String::as_str));
    assert_eq!(ten.len(), 10);
    let (_groups, container) = merge_all(&three)?;
    let mut helper = Helper::spawn(&[&["merge"], &ten[..]].concat(), &[])?;
    assert_eq!(helper.line()?, "ready");
    let memory = Memory::anonymous(PAGE_SIZE)?;
    container.map(0x10_0000, &memory, MapFlags::ReadWrite)?;

    let path = "/sys/kernel/debug/vfio_iommu_type1/containers";
    let text = fs::read_to_string(path).context(path)?;
    let mut domains = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("IOMMU with "))
        .map(|line| -> Result<BTreeSet<u32>> {
            let numbers = line.split("group ids:").nth(1).context("no group ids")?;
            let numbers = numbers.split_whitespace().map(str::parse);
            Ok(numbers.collect::<Result<_, _>>()?)
        })
        .collect::<Result<Vec<_>>>()?;
    domains.sort();
    let groups_of = |devices: &[&str]| {
        let numbers = devices.iter().map(|bdf| pci::group_of(bdf));
        numbers.collect::<vfio_client::Result<BTreeSet<u32>>>()
    };
    let mut expected = vec![groups_of(&three)?, groups_of(&ten)?];
    expected.sort();
    assert_eq!(domains, expected, "two domains:\n{text}");
    helper.finish()
}

fn only_physical_functions_have_tokens() -> Result<()> {
    let functions = Functions::new(1)?;
    let whole = Setup::with(WHOLE, Iommu::Type1v2)?;
    assert_eq!(
        feature::send(&whole.device, PROBE | SET | PCI_VF_TOKEN, &[]),
        Ok(0)
    );
    let get = feature::send(&whole.device, GET | PCI_VF_TOKEN, &[0; 16]);
    assert_eq!(get, Err(Errno::EINVAL), "a token cannot be read");
    let short = feature::send(&whole.device, SET | PCI_VF_TOKEN, &TOKEN[..15]);
    assert_eq!(short, Err(Errno::EINVAL));
    feature::send(&whole.device, SET | PCI_VF_TOKEN, &TOKEN)?;
    let (_container, group) = attached(&functions.0[0], Iommu::Type1v2)?;
    let function = open(&group, &functions.0[0], RIGHT)?;
    assert_eq!(
        feature::send(&function, SET | PCI_VF_TOKEN, &TOKEN),
        Err(Errno::ENOTTY)
    );
    let edu = Setup::new()?;
    assert_eq!(
        feature::send(&edu.device, SET | PCI_VF_TOKEN, &TOKEN),
        Err(Errno::ENOTTY)
    );
    Ok(())
}

fn virtual_function_needs_token() -> Result<()> {
    let functions = Functions::new(1)?;
    let bdf = &functions.0[0];
    let (_container, group) = attached(bdf, Iommu::Type1v2)?;
    // There is always a token, at least the one of the driver.
    assert_eq!(open(&group, bdf, "").err(), Some(Errno::EACCES));
    assert_eq!(open(&group, bdf, WRONG).err(), Some(Errno::EACCES));
    let whole = Setup::with(WHOLE, Iommu::Type1v2)?;
    feature::send(&whole.device, SET | PCI_VF_TOKEN, &TOKEN)?;
    for (more, errno) in [
        ("", Errno::EACCES),
        (WRONG, Errno::EACCES),
        ("vf_token=00112233", Errno::EINVAL),
        ("token=00112233-4455-6677-8899-aabbccddeeff", Errno::EINVAL),
    ] {
        assert_eq!(open(&group, bdf, more).err(), Some(errno), "{more}");
    }
    let device = open(&group, bdf, RIGHT)?;
    device.info()?;
    // The token stays in use when the physical function is closed.
    drop(whole);
    device.info()?;
    drop(device);
    open(&group, bdf, RIGHT)?.info()?;
    assert_eq!(open(&group, bdf, WRONG).err(), Some(Errno::EACCES));
    Ok(())
}

fn open_physical_function_with_token() -> Result<()> {
    let functions = Functions::new(1)?;
    let bdf = &functions.0[0];
    let (_container, group) = attached(WHOLE, Iommu::Type1v2)?;
    // While no virtual function is in use, a process that opens the physical function may set a
    // new token.
    let whole = open(&group, WHOLE, RIGHT)?;
    let (_other, of_function) = attached(bdf, Iommu::Type1v2)?;
    let function = open(&of_function, bdf, RIGHT)?;
    drop(whole);
    // Now the user of the physical function must provide the token of the users of virtual
    // functions.
    assert_eq!(open(&group, WHOLE, "").err(), Some(Errno::EACCES));
    assert_eq!(open(&group, WHOLE, WRONG).err(), Some(Errno::EACCES));
    let name = format!("{WHOLE} {RIGHT} more");
    assert_eq!(group.device(&name).errno(), Errno::EINVAL);
    open(&group, WHOLE, RIGHT)?.info()?;
    drop(function);
    open(&group, WHOLE, "")?.info()?;
    Ok(())
}
