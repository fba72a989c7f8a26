//! `cargo xtask image`: the images of the Dockerfile without a container engine, and without a registry.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use object::read::elf::{ElfFile64, ProgramHeader as _};
use portolan_testbed::{Image, image_build_variables};

use crate::tools::{self, cargo};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Where portolan.tar, echo.tar and the two binaries go
    out_dir: PathBuf,
    /// Build by the Dockerfile itself, with buildah, which fetches the compiler's image; makes the archives alone
    #[arg(long)]
    dockerfile: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    if arguments.dockerfile { by_the_dockerfile(&arguments.out_dir) } else { write(&arguments.out_dir) }
}

/// Builds the static binaries and writes into the folder `portolan.tar` (`portolan:dev`), `echo.tar`
/// (`portolan-echo:dev`) and, beside them, the binaries `portolan` and `portolan-loadtest`, of which more images can be
/// made. Some minutes the first time, seconds when nothing changed.
pub(crate) fn write(folder: &Path) -> Result<()> {
    if !cfg!(target_os = "linux") {
        bail!("images are built on Linux; elsewhere use `docker build -t portolan:dev .`");
    }
    make(folder)?;
    for package in ["portolan", "portolan-loadtest"] {
        let binary = build(package)?;
        check_static(&binary)?;
        // Not over the old one: it may be running.
        let beside = folder.join(format!("{package}.new"));
        fs::copy(&binary, &beside).with_context(|| format!("cannot write {}", beside.display()))?;
        fs::rename(&beside, folder.join(package))?;
    }
    for (image, file) in [(Image::portolan(folder)?, "portolan.tar"), (Image::echo(folder)?, "echo.tar")] {
        let archive = folder.join(file);
        image.write(&archive)?;
        let megabytes = fs::metadata(&archive)?.len() as f64 / 1e6;
        println!("{:<18} {} ({megabytes:.1} MB)", image.reference, archive.display());
    }
    Ok(())
}

fn make(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))
}

/// The release binary of one package, built as the Dockerfile builds it. The target is named so that the flags do not
/// count for build scripts and macros.
fn build(package: &str) -> Result<PathBuf> {
    let target = host()?;
    let mut build = cargo();
    build.args(["build", "--release", "--locked", "--target", &target, "--package", package]);
    // It would go before the flags from the Dockerfile.
    build.env_remove("CARGO_ENCODED_RUSTFLAGS").envs(image_build_variables()?);
    tools::run(&mut build).with_context(|| {
        format!("cannot build {package} as a static binary (needs a C linker and libc.a: Debian's gcc and libc6-dev)")
    })?;
    Ok(target_folder()?.join(target).join("release").join(package))
}

fn host() -> Result<String> {
    let output = Command::new("rustc").args(["--print", "host-tuple"]).output();
    let output = output.context("cannot run rustc: install Rust as rust-toolchain.toml says")?;
    if !output.status.success() {
        bail!("`rustc --print host-tuple` failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

pub(crate) fn target_folder() -> Result<PathBuf> {
    let output = cargo().args(["metadata", "--locked", "--no-deps", "--format-version", "1"]).output()?;
    if !output.status.success() {
        bail!("`cargo metadata` failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    Ok(metadata["target_directory"].as_str().context("cargo names its target folder")?.into())
}

/// An error unless the kernel alone can start the program: on an empty image there is no dynamic linker.
fn check_static(binary: &Path) -> Result<()> {
    let content = fs::read(binary).with_context(|| format!("cannot read {}", binary.display()))?;
    if let Some(interpreter) = interpreter(&content).with_context(|| format!("{}", binary.display()))? {
        bail!("{} is not static: it asks for {interpreter}", binary.display());
    }
    Ok(())
}

/// The dynamic linker that a 64-bit program asks for.
fn interpreter(content: &[u8]) -> Result<Option<String>> {
    let file = ElfFile64::<object::Endianness>::parse(content).context("not a 64-bit ELF program")?;
    for segment in file.elf_program_headers() {
        if let Some(path) = segment.interpreter(file.endian(), content)? {
            return Ok(Some(String::from_utf8_lossy(path).into_owned()));
        }
    }
    Ok(None)
}

/// The same two archives, from the Dockerfile's own build.
fn by_the_dockerfile(folder: &Path) -> Result<()> {
    let there = Command::new("buildah").arg("--version").output().is_ok_and(|output| output.status.success());
    if !there {
        bail!("buildah is not on the PATH: install it (Debian's package buildah), or leave --dockerfile out");
    }
    make(folder)?;
    for (stage, reference, file) in
        [("portolan", "portolan:dev", "portolan.tar"), ("echo", "portolan-echo:dev", "echo.tar")]
    {
        tools::run(
            Command::new("buildah").args(["build", "--layers", "--target", stage, "--tag", reference, "."]),
        )?;
        let archive = folder.join(file);
        // An archive that exists is not replaced but refused.
        if archive.exists() {
            fs::remove_file(&archive)?;
        }
        let to = format!("docker-archive:{}:{reference}", archive.display());
        tools::run(Command::new("buildah").args(["push", &format!("localhost/{reference}"), &to]))?;
        println!("{reference:<18} {}", archive.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_of_the_system_is_not_static() {
        // The test itself is linked to the C library as every program of a plain `cargo build`.
        let itself = std::env::current_exe().unwrap();
        let error = check_static(&itself).unwrap_err().to_string();
        assert!(error.contains("is not static"), "{error}");
    }

    #[test]
    fn what_is_no_program_is_said_to_be_none() {
        let error = format!("{:#}", check_static(Path::new("Cargo.toml")).unwrap_err());
        assert!(error.contains("not a 64-bit ELF program"), "{error}");
    }
}
