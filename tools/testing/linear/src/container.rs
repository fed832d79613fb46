// SPDX-License-Identifier: GPL-2.0

//! Runs with a container: the open files of a process, and the requests of a thread.

use crate::{
    agent::{
        Agent,
        Setup,
        serve, //
    },
    machine::{
        DEVICES,
        MARK_AT,
        has_list,
        list,
        locked_pages,
        map_memory,
        mark_memory,
        open_groups,
        set_limit, //
    },
    target::{
        self,
        Settings,
        Target, //
    },
};
use anyhow::{
    Context,
    Result,
    bail, //
};
use linear::{
    model::{
        Container as Model,
        Machine, //
    },
    op::{
        Answer,
        Bitmap,
        FAULT,
        Group,
        MARK,
        Op,
        PAGE,
        RESULT,
        unmap, //
    },
    plan::{
        MEMORY,
        MEMORY_PAGES,
        Plan,
        USUAL_LIMIT, //
    },
};
use nix::sys::memfd::{
    MFdFlags,
    memfd_create, //
};
use std::{
    fs::File,
    os::{
        fd::{
            AsFd,
            AsRawFd, //
        },
        unix::fs::FileExt, //
    },
    sync::Arc, //
};
use support::{
    helper::{
        inherited,
        without_ipc_lock, //
    },
    pin::{
        Ask,
        Pages, //
    },
    requests::{
        self,
        DirtyPages,
        MapDma,
        UnmapDma, //
    },
};
use vfio_client::{
    Arena, Bytes, Container, Device, Errno, Group as GroupFile, Iommu, Memory,
    edu::Edu,
    raw, request,
    structures::{
        GroupStatus,
        argsz, //
    },
};

/// An address that is not writable.
const UNWRITABLE: u64 = 0x1000;

/// The maximum number of pages that the second process can lock.
const LIMIT: u64 = 14;

/// The files that both processes have.
#[derive(Debug)]
pub struct Files {
    /// The container.
    pub container: Container,
    /// The groups, by index.
    pub groups: Vec<GroupFile>,
    /// The memory that is mapped.
    pub memory: File,
    /// The process ids.
    pub processes: [u32; 2],
}

/// The state of a thread.
#[derive(Debug)]
pub struct Worker {
    files: Arc<Files>,
    /// Structures are placed at its end, so that a kernel that reads past them faults.
    structure: Memory,
    /// Bitmaps are placed at its end, too.
    bitmap: Memory,
    /// The driver's device, once for each time that the thread opened it.
    devices: Vec<Arc<Device>>,
    /// The device that was opened for all threads.
    shared: Option<Arc<Device>>,
}

impl Worker {
    /// Creates the state of a thread.
    pub fn new(files: Arc<Files>, shared: Option<Arc<Device>>) -> Result<Self> {
        Ok(Self {
            files,
            structure: Memory::anonymous(3 * PAGE as usize)?,
            bitmap: Memory::anonymous(PAGE as usize)?,
            devices: Vec::new(),
            shared,
        })
    }

    /// Returns the device that was opened last.
    pub fn last_device(&self) -> Option<Arc<Device>> {
        self.devices.last().cloned()
    }

    fn device(&self) -> Option<&Arc<Device>> {
        self.devices.last().or(self.shared.as_ref())
    }

    fn perform(&mut self, op: &Op) -> Result<Answer> {
        let files = self.files.clone();
        let container = &files.container;
        Ok(match *op {
            Op::Map {
                flags,
                vaddr,
                iova,
                size,
            } => {
                let map = MapDma {
                    argsz: MapDma::SIZE,
                    flags,
                    vaddr,
                    iova,
                    size,
                };
                self.send(container, request::IOMMU_MAP_DMA, &map.bytes())
                    .map(|_| Vec::new())
            }
            Op::MapMany {
                iova,
                count,
                stride,
            } => {
                for op in Op::singles(iova, count, stride) {
                    if let Err(errno) = self.perform(&op)? {
                        return Ok(Err(errno));
                    }
                }
                Ok(Vec::new())
            }
            Op::Unmap {
                flags,
                iova,
                size,
                bitmap,
            } => self.unmap(flags, iova, size, bitmap),
            Op::Track(flags) => {
                let bytes = DirtyPages::track(flags).bytes();
                self.send(container, request::IOMMU_DIRTY_PAGES, &bytes)
                    .map(|_| Vec::new())
            }
            Op::Dirty { iova, size, bitmap } => {
                let bytes = DirtyPages::get(iova, size, self.argument(bitmap)).bytes();
                let sent = self.send(container, request::IOMMU_DIRTY_PAGES, &bytes);
                sent.map(|_| self.words(bitmap))
            }
            Op::Info => container.info().map_err(|e| e.errno()).map(|info| {
                let avail = info.dma_avail().unwrap_or(u32::MAX);
                let ends = info.ranges().into_iter().flat_map(|r| [r.start, r.end]);
                [avail.into(), info.page_sizes]
                    .into_iter()
                    .chain(ends)
                    .collect()
            }),
            Op::Extension(nr) => number(raw::value(container, request::CHECK_EXTENSION, nr.into())),
            Op::SetIommu { version, limit } => {
                set_limit(limit)?;
                nothing(raw::value(container, request::SET_IOMMU, version.into()))
            }
            Op::Join(group) => {
                let fd = container.as_fd().as_raw_fd();
                let bytes = Bytes::of(&fd);
                let group = &files.groups[group as usize];
                self.send(group, request::GROUP_SET_CONTAINER, &bytes)
                    .map(|_| Vec::new())
            }
            Op::Leave(group) => nothing(raw::none(
                &files.groups[group as usize],
                request::GROUP_UNSET_CONTAINER,
            )),
            Op::Status(group) => {
                let status = GroupStatus {
                    argsz: argsz::<GroupStatus>(),
                    flags: 0,
                };
                let bytes = Bytes::of(&status);
                let group = &files.groups[group as usize];
                let sent = self.send(group, request::GROUP_GET_STATUS, &bytes);
                sent.map(|bytes| vec![bytes.get::<GroupStatus>(0).flags.into()])
            }
            Op::Open => {
                let group = Group::Emulated as usize;
                let opened = files.groups[group].device(DEVICES[group]);
                opened.map_err(|e| e.errno()).map(|device| {
                    self.devices.push(Arc::new(device));
                    Vec::new()
                })
            }
            Op::Close => {
                self.devices.pop().context("the device is not open")?;
                Ok(Vec::new())
            }
            Op::Locked(process) => Ok(vec![locked_pages(files.processes[usize::from(process)])?]),
            Op::Listed => Ok(list()?),
            Op::Dma(iova) => self.dma(iova)?,
            Op::Pin { .. } | Op::Unpin(_) | Op::Pinned | Op::Read { .. } | Op::Write { .. } => {
                self.ask_driver(op)?
            }
        })
    }

    /// Sends a structure, and returns it as the kernel left it.
    fn send(&mut self, fd: impl AsFd, nr: u32, bytes: &Bytes) -> Result<Bytes, Errno> {
        self.send_for(fd, nr, bytes).map(|(_, bytes)| bytes)
    }

    fn send_for(&mut self, fd: impl AsFd, nr: u32, bytes: &Bytes) -> Result<(i32, Bytes), Errno> {
        let offset = self.structure.len() - bytes.len();
        self.structure.write(offset, bytes.as_ref());
        let returned = raw::at(fd, nr, &mut self.structure, offset)?;
        let bytes = self.structure.to_vec(offset, bytes.len());
        Ok((returned, Bytes::new().raw(&bytes)))
    }

    /// Returns the offset at which a bitmap starts so that it ends at the end of its memory.
    fn bitmap_start(&self, bitmap: Bitmap) -> usize {
        self.bitmap.len() - bitmap.size as usize
    }

    /// Fills the memory of a bitmap, and returns the argument of a request for it.
    fn argument(&self, bitmap: Bitmap) -> requests::Bitmap {
        let start = self.bitmap_start(bitmap);
        self.bitmap.fill(start, bitmap.size as usize, bitmap.fill);
        let address = match bitmap.room {
            0 => UNWRITABLE,
            _ => self.bitmap.addr() + start as u64,
        };
        requests::Bitmap {
            pgsize: bitmap.pgsize,
            size: bitmap.size,
            data: address,
        }
    }

    fn words(&self, bitmap: Bitmap) -> Vec<u64> {
        let start = self.bitmap_start(bitmap);
        let words = (start..self.bitmap.len()).step_by(8);
        let words = words.take(bitmap.words().len());
        words.map(|at| self.bitmap.read_u64(at)).collect()
    }

    fn unmap(&mut self, flags: u32, iova: u64, size: u64, bitmap: Option<Bitmap>) -> Answer {
        let unmap = match bitmap {
            Some(bitmap) => UnmapDma {
                flags,
                ..UnmapDma::with_bitmap(iova, size, self.argument(bitmap))
            },
            None => UnmapDma {
                flags,
                ..UnmapDma::of(iova, size)
            },
        };
        let files = self.files.clone();
        let bytes = self.send(&files.container, request::IOMMU_UNMAP_DMA, &unmap.bytes())?;
        let mut numbers = vec![UnmapDma::unmapped(&bytes)];
        if let Some(bitmap) = bitmap.filter(|_| flags & unmap::DIRTY != 0) {
            numbers.extend(self.words(bitmap));
        }
        Ok(numbers)
    }

    fn ask_driver(&mut self, op: &Op) -> Result<Answer> {
        let device = self.device().context("the device is not open")?.clone();
        let pages = |iova: u64, count: u32, prot: u32| {
            let pages = Pages {
                iova,
                count,
                prot,
                word: 0,
            };
            pages.bytes()
        };
        Ok(match *op {
            Op::Pin { iova, count, prot } => {
                let sent = self.send_for(&*device, Ask::Pin.number(), &pages(iova, count, prot));
                sent.map(|(pinned, _)| vec![pinned as u64])
            }
            Op::Unpin(iova) => {
                let sent = self.send(&*device, Ask::Unpin.number(), &pages(iova, 1, 0));
                sent.map(|_| Vec::new())
            }
            Op::Pinned => number(raw::none(&*device, Ask::Pinned.number())),
            Op::Read { iova, count } => {
                let len = (count - 1) * PAGE as u32 + 8;
                let bytes = pages(iova + MARK_AT, len, 0).fill(0xa5, len as usize);
                self.send(&*device, Ask::Read.number(), &bytes)
                    .map(|bytes| {
                        let marks = (0..count as usize).map(|nth| nth * PAGE as usize);
                        marks
                            .map(|at| bytes.get_u64(size_of::<Pages>() + at))
                            .collect()
                    })
            }
            Op::Write { iova, count } => {
                // The end of a page, and possibly the start of the next one. There are no marks
                // there.
                let len = count * 8;
                let bytes = pages(iova + PAGE - 8, len, 0).fill(0x5a, len as usize);
                self.send(&*device, Ask::Write.number(), &bytes)
                    .map(|_| Vec::new())
            }
            _ => anyhow::bail!("{op} is not a request to the driver"),
        })
    }

    /// Makes the `edu` read a mark and store it; see [`Op::Dma`].
    fn dma(&mut self, iova: u64) -> Result<Answer> {
        let files = self.files.clone();
        let group = Group::Physical as usize;
        let device = match files.groups[group].device(DEVICES[group]) {
            Ok(device) => device,
            Err(error) => return Ok(Err(error.errno())),
        };
        let place = (MEMORY_PAGES - 1) * PAGE;
        files.memory.write_all_at(&FAULT.to_ne_bytes(), place)?;
        let edu = Edu::new(&device)?;
        edu.load(RESULT, 8)?;
        edu.load(iova + MARK_AT, 8)?;
        edu.store(RESULT, 8)?;
        let mut word = [0; 8];
        files.memory.read_exact_at(&mut word, place)?;
        let word = u64::from_ne_bytes(word);
        // The result of a device's read of an unmapped address depends on the machine.
        let is_mark = (MARK..MARK + MEMORY_PAGES).contains(&word);
        Ok(Ok(vec![if is_mark { word } else { FAULT }]))
    }
}

impl target::Worker<Op> for Worker {
    fn can(&self, op: &Op) -> bool {
        match op {
            Op::Close => !self.devices.is_empty(),
            Op::Listed => has_list(),
            Op::Pin { .. } | Op::Unpin(_) | Op::Pinned | Op::Read { .. } | Op::Write { .. } => {
                self.device().is_some()
            }
            _ => true,
        }
    }

    fn has_opened(&self) -> bool {
        !self.devices.is_empty()
    }

    fn perform(&mut self, op: &Op) -> Result<Option<Answer>> {
        self.perform(op).map(Some)
    }
}

/// A container, its groups and the second process.
#[derive(Debug)]
pub struct OneContainer {
    files: Arc<Files>,
    agent: Agent,
    model: Model,
    /// Keeps the memory mapped.
    _arena: Arena,
}

/// Queries the properties of the IOMMU.
fn survey(container: &Container, groups: &[GroupFile]) -> Result<Machine> {
    let edu = &groups[Group::Physical as usize];
    edu.set_container(container)?;
    container.set_iommu(Iommu::Type1v2)?;
    let info = container.info()?;
    let coherent = raw::value(container, request::CHECK_EXTENSION, 4)?;
    edu.unset_container()?;
    Ok(Machine {
        ranges: info
            .ranges()
            .iter()
            .map(|range| (range.start, range.end))
            .collect(),
        page_sizes: info.page_sizes,
        coherent: coherent as u64,
        memory: (MEMORY, MEMORY + MEMORY_PAGES * PAGE),
        limits: [None, Some(LIMIT)],
    })
}

impl Target for OneContainer {
    type Op = Op;
    type Worker = Worker;
    type Model = Model;

    fn start(settings: &Settings) -> Result<Self> {
        let memory = File::from(memfd_create(c"linear", MFdFlags::MFD_CLOEXEC)?);
        mark_memory(&memory)?;
        let arena = map_memory(&memory)?;
        let container = Container::open()?;
        let groups = open_groups()?;
        let model = Model {
            machine: survey(&container, &groups)?,
            rules: settings.judgement,
        };
        let mut fds: Vec<&dyn AsFd> = vec![&container, &memory];
        fds.extend(groups.iter().map(|group| group as &dyn AsFd));
        let words = fds.iter().map(|fd| fd.as_fd().as_raw_fd().to_string());
        let agent = Agent::start(AGENT, settings, &words.collect::<Vec<_>>(), &fds)?;
        let files = Arc::new(Files {
            container,
            groups,
            memory,
            processes: [std::process::id(), agent.process()],
        });
        Ok(Self {
            files,
            agent,
            model,
            _arena: arena,
        })
    }

    fn model(&self) -> &Model {
        &self.model
    }

    fn plan(settings: &Settings, number: u64) -> Plan {
        Plan::new(settings.seed, number, settings.choice)
    }

    fn begin(&mut self) -> Result<Worker> {
        Worker::new(self.files.clone(), None)
    }

    fn agent(&mut self, _settings: &Settings) -> Result<&mut Agent> {
        Ok(&mut self.agent)
    }

    fn worker(&self, alone: &Worker) -> Result<Worker> {
        Worker::new(self.files.clone(), alone.last_device())
    }

    fn threads_ended(&mut self) -> Result<()> {
        Ok(())
    }

    fn covers_others(op: &Op) -> bool {
        matches!(op, Op::Listed)
    }

    fn end(self) -> Result<()> {
        set_limit(USUAL_LIMIT)?;
        self.agent.end()?;
        let left = locked_pages(std::process::id()).context("locked pages at the end")?;
        anyhow::ensure!(left == 0, "expected no locked pages at the end, got {left}");
        Ok(())
    }
}

/// The command of the second process.
pub const AGENT: &str = "container";

/// Runs the second process.
pub fn agent(setup: Setup, words: &[&str]) -> Result<()> {
    let [container, memory, ref groups @ ..] = words[..] else {
        bail!("expected descriptors, got {words:?}");
    };
    without_ipc_lock(LIMIT * PAGE)?;
    let memory = File::from(inherited(memory)?);
    let _arena = map_memory(&memory)?;
    let groups = groups
        .iter()
        .map(|word| Ok(GroupFile::from_fd(inherited(word)?)));
    let files = Arc::new(Files {
        container: Container::from_fd(inherited(container)?),
        groups: groups.collect::<Result<_>>()?,
        memory,
        processes: [std::os::unix::process::parent_id(), std::process::id()],
    });
    serve(
        &setup,
        |number| Plan::new(setup.seed, number, setup.rules),
        || Worker::new(files.clone(), None),
    )
}

fn number(returned: Result<i32, Errno>) -> Answer {
    returned.map(|number| vec![number as u64])
}

fn nothing(returned: Result<i32, Errno>) -> Answer {
    returned.map(|_| Vec::new())
}
