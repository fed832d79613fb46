// SPDX-License-Identifier: GPL-2.0

//! Devices returned to host drivers, and the default domain that these find.

use crate::{
    env::{
        EDU,
        NVME,
        Setup,
        attached,
        group, //
    },
    harness::{
        Failure,
        cases, //
    },
    plug::{
        LIMIT,
        until, //
    },
};
use anyhow::{
    Context,
    Result,
    ensure, //
};
use std::{
    fs,
    io,
    os::unix::fs::FileExt,
    path::PathBuf,
    process::Command, //
};
use support::machine::locked_pages;
use vfio_client::{
    Errno,
    Iommu,
    MapFlags,
    Memory,
    PAGE_SIZE,
    edu::{
        self,
        Edu, //
    },
    pci, //
};

cases! {
    host_driver_reads_disk_after_vfio,
    host_driver_and_program_read_same_data,
    host_driver_binds_while_group_is_open,
    default_domain_is_fixed_while_group_is_owned,
    default_domain_can_change_between_owners,
}

/// The host driver.
const DRIVER: &str = "nvme";
/// The size of the disk.
const DISK: usize = 4 << 20;

/// Returns the path of the file with the type of a group's default domain.
fn domain_file(bdf: &str) -> Result<String> {
    Ok(format!(
        "/sys/kernel/iommu_groups/{}/type",
        pci::group_of(bdf)?
    ))
}

fn domain(bdf: &str) -> Result<String> {
    Ok(fs::read_to_string(domain_file(bdf)?)?.trim().to_owned())
}

fn set_domain(bdf: &str, to: &str) -> Result<io::Result<()>> {
    Ok(fs::write(domain_file(bdf)?, to))
}

/// The host driver owns the disk. Dropping this binds the disk to `vfio-pci` again.
struct Kernels {
    disk: PathBuf,
}

impl Kernels {
    fn new() -> Result<Self> {
        pci::unbind(NVME)?;
        Self::bind()
    }

    fn bind() -> Result<Self> {
        pci::bind(NVME, DRIVER)?;
        assert_eq!(pci::driver(NVME).as_deref(), Some(DRIVER));
        let mut kernels = Self {
            disk: PathBuf::new(),
        };
        until("the disk", LIMIT, || {
            kernels.disk = disk().unwrap_or_default();
            Ok(fs::File::open(&kernels.disk).is_ok())
        })?;
        Ok(kernels)
    }

    fn read(&self) -> Result<Vec<u8>> {
        fs::read(&self.disk).with_context(|| self.disk.display().to_string())
    }

    /// Writes to the disk and waits until the data is stored.
    fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        let disk = fs::File::options().write(true).open(&self.disk)?;
        disk.write_all_at(data, offset)?;
        disk.sync_all()?;
        Ok(())
    }

    fn sha256(&self) -> Result<String> {
        let done = Command::new("sha256sum").arg(&self.disk).output()?;
        let text = String::from_utf8(done.stdout)?;
        Ok(text.split(' ').next().unwrap_or_default().to_owned())
    }
}

impl Drop for Kernels {
    fn drop(&mut self) {
        let _ = pci::unbind(NVME);
        // A host driver leaves page tables in the default domain. A new domain has none.
        if let Ok(now) = domain(NVME) {
            let _ = set_domain(NVME, "identity");
            let _ = set_domain(NVME, &now);
        }
        let _ = pci::bind(NVME, "vfio-pci");
    }
}

/// Returns the block device of the controller.
fn disk() -> Option<PathBuf> {
    let controller = fs::read_dir(pci::sysfs(NVME).join(DRIVER)).ok()?.next()?;
    let name = controller.ok()?.file_name().into_string().ok()?;
    let path = PathBuf::from(format!("/dev/{name}n1"));
    path.exists().then_some(path)
}

/// Returns the initial contents of the disk: each eight bytes are their number as a line of text.
fn image() -> Vec<u8> {
    (0..DISK / 8)
        .flat_map(|number| format!("{number:07}\n").into_bytes())
        .collect()
}

/// Uses the disk's controller from userspace.
fn use_from_program() -> Result<()> {
    let setup = Setup::with(NVME, Iommu::Type1v2)?;
    let memory = Memory::anonymous(16 * PAGE_SIZE)?;
    setup.container.map(0, &memory, MapFlags::ReadWrite)?;
    pci::Config::of(&setup.device)?.enable()?;
    setup.device.reset()?;
    Ok(())
}

fn host_driver_reads_disk_after_vfio() -> Result<()> {
    use_from_program()?;
    let image = image();
    {
        let kernels = Kernels::new()?;
        ensure!(
            kernels.read()? == image,
            "the data read differs from the disk"
        );
        assert_eq!(
            set_domain(NVME, "identity")?.errno(),
            Errno::EPERM,
            "a driver uses the device"
        );
    }
    assert_eq!(pci::driver(NVME).as_deref(), Some("vfio-pci"));
    assert_eq!(group(NVME)?.status()?, 1);
    use_from_program()?;
    ensure!(
        Kernels::new()?.read()? == image,
        "the data read differs from the disk"
    );
    use_from_program()
}

fn host_driver_and_program_read_same_data() -> Result<()> {
    let read_by_program = |sum: &str| -> Result<()> {
        let done = Command::new("nvme_read")
            .args(["read", "--device", NVME, "--expect-sha256", sum])
            .output()
            .context("nvme_read")?;
        let said = [done.stdout, done.stderr].concat();
        ensure!(done.status.success(), "{}", String::from_utf8_lossy(&said));
        Ok(())
    };
    let at = 1 << 20;
    let data = [0xa5; 3 * PAGE_SIZE];
    let mut image = image();
    let (before, after) = {
        let kernels = Kernels::new()?;
        let before = kernels.sha256()?;
        kernels.write(at as u64, &data)?;
        (before, kernels.sha256()?)
    };
    assert_ne!(before, after);
    read_by_program(&after)?;
    {
        let kernels = Kernels::new()?;
        let part = image[at..][..data.len()].to_vec();
        image[at..][..data.len()].copy_from_slice(&data);
        let found = kernels.read()?;
        kernels.write(at as u64, &part)?;
        ensure!(
            found == image,
            "the data read differs from the data written"
        );
    }
    read_by_program(&before)
}

fn host_driver_binds_while_group_is_open() -> Result<()> {
    let (container, old) = attached(NVME, Iommu::Type1v2)?;
    let memory = Memory::anonymous(16 * PAGE_SIZE)?;
    container.map(0, &memory, MapFlags::ReadWrite)?;
    {
        // Removing its last device takes the group out of the container and back into the default
        // domain.
        let kernels = Kernels::new()?;
        assert_eq!(locked_pages(), 0);
        assert_eq!(old.status().errno(), Errno::ENODEV);
        assert_eq!(container.info().errno(), Errno::EINVAL);
        ensure!(
            kernels.read()? == image(),
            "the data read differs from the disk"
        );
    }
    // The old group is still open, but dead. A new group takes its place.
    assert_eq!(old.set_container(&container).errno(), Errno::ENODEV);
    let new = group(NVME)?;
    new.set_container(&container)?;
    container.set_iommu(Iommu::Type1v2)?;
    container.map(0, &memory, MapFlags::ReadWrite)?;
    new.device(NVME)?.info()?;
    Ok(())
}

/// Restores the default domain when dropped.
struct Restore(String);

impl Drop for Restore {
    fn drop(&mut self) {
        let _ = set_domain(EDU, &self.0);
    }
}

fn default_domain_is_fixed_while_group_is_owned() -> Result<()> {
    let kind = domain(EDU)?;
    let _restore = Restore(kind.clone());
    let refused = |when: &str| -> Result<()> {
        assert_eq!(set_domain(EDU, "identity")?.errno(), Errno::EPERM, "{when}");
        assert_eq!(domain(EDU)?, kind, "{when}");
        Ok(())
    };
    let (container, group) = attached(EDU, Iommu::Type1v2)?;
    refused("in a container")?;
    let device = group.device(EDU)?;
    drop((container, group));
    refused("device still open")?;
    drop(device);
    set_domain(EDU, "identity")??;
    assert_eq!(domain(EDU)?, "identity");
    Ok(())
}

fn default_domain_can_change_between_owners() -> Result<()> {
    let _restore = Restore(domain(EDU)?);
    let memory = Memory::anonymous(PAGE_SIZE)?;
    for kind in ["identity", "DMA", "DMA-FQ"] {
        set_domain(EDU, kind)??;
        let setup = Setup::new()?;
        assert_eq!(domain(EDU)?, kind);
        let edu = Edu::new(&setup.device)?;
        setup
            .container
            .map(0x10_0000, &memory, MapFlags::ReadWrite)?;
        memory.fill(0, PAGE_SIZE, 0x2b);
        edu.load(0x10_0000, edu::MEMORY as u64)?;
        memory.fill(0, PAGE_SIZE, 0);
        edu.store(0x10_0000, edu::MEMORY as u64)?;
        let bytes = memory.to_vec(0, edu::MEMORY);
        assert!(bytes.iter().all(|byte| *byte == 0x2b), "{kind}");
        drop((edu, setup));
        assert_eq!(domain(EDU)?, kind, "the type is unchanged");
    }
    Ok(())
}
