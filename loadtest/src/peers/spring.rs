//! Spring Cloud Gateway: a small application around it, built with Maven once into the user's cache folder.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use super::setup::Setup;
use super::wheels::{cache_folder, lock};

const POM: &str = include_str!("spring/pom.xml");
const APPLICATION: &str = include_str!("spring/Gateway.java");

/// Finds the application, or builds it first.
///
/// # Errors
/// If Java or Maven is missing, or it does not build.
pub(super) fn build() -> anyhow::Result<PathBuf> {
    for (program, package) in [("java", "a JDK of version 17 or later"), ("mvn", "Maven")] {
        let version = Command::new(program).arg("-version").stdin(Stdio::null()).output();
        if !version.is_ok_and(|output| output.status.success()) {
            bail!("Spring Cloud Gateway needs `{program}` on the PATH: install {package}, or leave scg out");
        }
    }
    let cache = cache_folder()?.join("peers");
    let _lock = lock(&cache)?;
    let folder = cache.join(format!("spring-cloud-gateway-{}", key()));
    let jar = folder.join("target/gateway.jar");
    if !jar.is_file() {
        let sources = folder.join("src/main/java/dev/portolan/peers");
        fs::create_dir_all(&sources)?;
        fs::write(folder.join("pom.xml"), POM)?;
        fs::write(sources.join("Gateway.java"), APPLICATION)?;
        let mut maven = Command::new("mvn");
        maven.args(["--batch-mode", "--quiet", "package"]).current_dir(&folder).stdin(Stdio::null());
        if !maven.status().context("cannot run mvn")?.success() {
            bail!("Maven cannot build {}: what it said stands above", folder.display());
        }
    }
    Ok(jar)
}

/// Its version, as the build has it: the name of its own archive in the application's.
pub(super) fn version(jar: &Path) -> anyhow::Result<String> {
    let name = b"spring-cloud-gateway-server-webflux-";
    let content = fs::read(jar)?;
    let at = content.windows(name.len()).position(|window| window == name).context("it has no such part")?;
    let rest = &content[at + name.len()..];
    let end = rest.windows(4).position(|window| window == b".jar").context("its part has no version")?;
    Ok(String::from_utf8_lossy(&rest[..end]).into_owned())
}

/// The command that runs it.
pub(super) fn command(jar: &Path, setup: &Setup<'_>) -> anyhow::Result<Command> {
    let file = setup.folder.join("application.yml");
    fs::write(&file, config(setup))?;
    let mut java = Command::new("java");
    // Where Java is, it knows by these.
    java.envs(std::env::vars_os());
    // One event loop, and no second core that it could count on.
    let workers = setup.shape.workers;
    java.arg(format!("-Dreactor.netty.ioWorkerCount={workers}"));
    java.arg(format!("-XX:ActiveProcessorCount={workers}"));
    if setup.shape.logged {
        java.arg("-Dreactor.netty.http.server.accessLogEnabled=true");
    }
    java.arg("-jar").arg(jar).arg(format!("--spring.config.location={}", file.display()));
    Ok(java)
}

fn config(setup: &Setup<'_>) -> String {
    let mut instances = String::new();
    for upstream in setup.upstreams {
        write!(instances, "\n            - uri: http://{upstream}").expect("a text takes all");
    }
    let Setup { plain, .. } = setup;
    let (address, port) = (plain.ip(), plain.port());
    format!(
        "server:
  address: {address}
  port: {port}
  http2.enabled: true
logging.level.root: warn
logging.level.reactor.netty.http.server.AccessLog: info
spring:
  main.banner-mode: off
  cloud:
    discovery.client.simple.instances:
          echo:{instances}
    gateway.server.webflux:
      httpclient.pool.max-connections: 1000
      routes:
        - id: echo
          uri: lb://echo
          predicates:
            - Path=/**
"
    )
}

/// One folder for each state of the files.
fn key() -> String {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    let mut hasher = DefaultHasher::new();
    (POM, APPLICATION).hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::super::setup::for_tests::plain;
    use super::*;

    #[test]
    fn every_upstream_is_an_instance() {
        let text = plain(config);
        assert!(text.contains("port: 20001\n"), "{text}");
        assert_eq!(text.matches("- uri: http://127.0.0.1:900").count(), 4, "{text}");
    }

    #[test]
    fn the_version_is_that_of_its_part() {
        let folder = tempfile::tempdir().unwrap();
        let jar = folder.path().join("gateway.jar");
        fs::write(&jar, b"PK..BOOT-INF/lib/spring-cloud-gateway-server-webflux-5.0.4.jar..").unwrap();
        assert_eq!(version(&jar).unwrap(), "5.0.4");
    }
}
