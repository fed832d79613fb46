// SPDX-License-Identifier: GPL-2.0

//! `holders` and `allow`.

use anyhow::{
    Context,
    Result,
    ensure, //
};

use nix::sys::stat::{
    self,
    Mode,
    SFlag, //
};
use std::{
    fs::{
        self,
        File, //
    },
    os::unix::fs::MetadataExt,
    process::Command, //
};

use super::{
    Case,
    HELPER, //
};
use crate::{
    hold::{
        Door,
        Hold,
        hold, //
    },
    machine::{
        DISK,
        EDU,
        NIC,
        NOBODY,
        group,
        shell, //
    },
    program::{
        expect,
        vfioctl, //
    }, //
};

/// Returns the cases.
pub fn cases() -> Vec<Case> {
    vec![
        ("holders::files_of_a_process", Box::new(holders)),
        ("holders::nodes_with_other_names", Box::new(renamed)),
        ("allow::a_user_opens_the_device", Box::new(allow)),
    ]
}

fn holders() -> Result<()> {
    vfioctl("holders")?.exits(0)?.says("No process")?;
    vfioctl(&format!("bind {EDU}"))?.exits(0)?;
    let helper = hold(EDU)?;
    let said = vfioctl("holders --json")?.exits(0)?.json()?;
    let files = said.as_array().context("expected an array")?;
    let of = |kind: &str| files.iter().find(|file| file["file"] == kind);
    for kind in ["group", "device", "container"] {
        let file = of(kind).with_context(|| format!("expected a {kind}:\n{said:#}"))?;
        expect(file, "pid", helper.id())?;
        expect(file, "command", HELPER)?;
        expect(file, "uid", 0)?;
    }
    expect(of("group").unwrap_or(&said), "group", group(EDU)?)?;
    expect(of("device").unwrap_or(&said), "device", EDU)?;
    vfioctl(&format!("holders {EDU}"))?
        .exits(0)?
        .says(&format!("device {EDU}"))?;
    // A file that vfioctl has inherited does not make it a user of the group.
    let inherits = format!("vfioctl holders {NIC} 5<>/dev/vfio/{}", group(NIC)?);
    vfioctl(&format!("bind {NIC}"))?.exits(0)?;
    shell(&format!("{inherits} | grep 'No process'"))?;
    vfioctl(&format!("restore {NIC}"))?.exits(0)?;
    vfioctl(&format!("holders {DISK}"))?
        .exits(0)?
        .says("No process")?;
    helper.finish()?;
    vfioctl("holders")?.exits(0)?.says("No process")?;
    vfioctl(&format!("restore {EDU}"))?.exits(0)?;
    Ok(())
}

/// A container can get the node of a group under another name.
fn renamed() -> Result<()> {
    vfioctl(&format!("bind {EDU}"))?.exits(0)?;
    let number = fs::metadata(format!("/dev/vfio/{}", group(EDU)?))?.rdev();
    let node = "/tmp/renamed";
    stat::mknod(node, SFlag::S_IFCHR, Mode::S_IRUSR | Mode::S_IWUSR, number)?;
    let file = File::options().read(true).write(true).open(node)?;
    let mut process = Command::new("sleep").arg("1000").stdin(file).spawn()?;
    let outcome = vfioctl(&format!("restore {EDU}")).and_then(|said| {
        let opened = format!("sleep ({}) has group", process.id());
        said.exits(4)?.complains(&opened)?;
        vfioctl(&format!("holders {EDU}"))?.exits(0)?.says("sleep")
    });
    process.kill()?;
    process.wait()?;
    fs::remove_file(node)?;
    outcome?;
    vfioctl(&format!("restore {EDU}"))?.exits(0)?;
    Ok(())
}

fn allow() -> Result<()> {
    vfioctl(&format!("allow nobody {EDU}"))?
        .exits(4)?
        .complains("vfioctl bind")?;
    vfioctl(&format!("bind {EDU}"))?.exits(0)?;
    let nobody = Hold {
        device: EDU,
        door: Door::Group,
        uid: NOBODY,
        map: 4096,
        limit: 0,
    };
    let denied = nobody.start()?.1;
    ensure!(
        denied.contains("EACCES"),
        "expected that nobody may not open it: {denied}"
    );
    for options in ["", "--owner"] {
        vfioctl(&format!("allow {options} nobody {EDU}"))?.exits(0)?;
        vfioctl(&format!("why {EDU} --user nobody"))?.exits(0)?;
        let mapped = nobody.start()?.1;
        ensure!(
            mapped == "mapped",
            "expected that nobody can use it: {mapped}"
        );
        vfioctl(&format!("allow --remove nobody {EDU}"))?.exits(0)?;
        let denied = nobody.start()?.1;
        ensure!(
            denied.contains("EACCES"),
            "expected that nobody may no longer open it: {denied}"
        );
    }
    vfioctl(&format!("allow nosuchuser {EDU}"))?.exits(3)?;
    vfioctl(&format!("restore {EDU}"))?.exits(0)?;
    Ok(())
}
