//! Container images without a registry and without a container engine: one layer of files, as an archive.
//!
//! The archive is an OCI image layout that carries Docker's own `manifest.json` too, as `docker save` writes it:
//! `ctr images import`, `docker load`, `podman load` and `skopeo` all take it. Equal files make an equal archive, byte
//! by byte: owners, times and the order of everything are fixed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::dockerfile::Stage;

/// An image to be written: files on an empty root, and how the container starts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Image {
    /// Its name and tag: `portolan:dev`.
    pub reference: String,
    /// Where each file is on this machine, and its absolute path in the image. Programs stay executable; everything
    /// belongs to root and can be read by all.
    pub files: Vec<(PathBuf, String)>,
    /// The program and its fixed arguments.
    pub entrypoint: Vec<String>,
    /// The arguments unless the pod brings its own.
    pub command: Vec<String>,
    /// Variables and their values.
    pub env: Vec<(String, String)>,
    /// `UID:GID`; empty is root.
    pub user: String,
    /// Labels of the image.
    pub labels: BTreeMap<String, String>,
    /// TCP ports that are declared; it opens nothing.
    pub ports: Vec<u16>,
}

impl Image {
    /// The gateway, `portolan:dev`, as the Dockerfile's stage `portolan` describes it, with the binary `portolan` in the
    /// folder `binaries`.
    ///
    /// # Errors
    /// When the Dockerfile has no such stage or says in it what this cannot do.
    pub fn portolan(binaries: &Path) -> Result<Image> {
        Image::of_stage("portolan", "portolan:dev", binaries)
    }

    /// The sample application, `portolan-echo:dev`, as the Dockerfile's stage `echo` describes it, with the binary
    /// `portolan-loadtest` in the folder `binaries`. Every option of the echo server is an environment variable too:
    ///
    /// ```no_run
    /// # fn main() -> anyhow::Result<()> {
    /// # use portolan_testbed::Image;
    /// # let images = std::path::Path::new("target/images");
    /// let v2 = Image::echo(images)?.tagged("portolan-echo:v2").with_env("ECHO_VERSION", "v2");
    /// v2.write(&images.join("echo-v2.tar"))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Image::portolan`].
    pub fn echo(binaries: &Path) -> Result<Image> {
        Image::of_stage("echo", "portolan-echo:dev", binaries)
    }

    /// The same under another name and tag.
    #[must_use]
    pub fn tagged(self, reference: &str) -> Image {
        Image { reference: reference.to_owned(), ..self }
    }

    /// The same with this variable set.
    #[must_use]
    pub fn with_env(mut self, name: &str, value: &str) -> Image {
        self.env.retain(|(other, _)| other != name);
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Writes the archive; whoever looks sees the old one or the whole new one.
    ///
    /// # Errors
    /// When a file cannot be read, a path in the image is not absolute, or the archive cannot be written.
    pub fn write(&self, archive: &Path) -> Result<()> {
        let name = full_name(&self.reference)?;
        let layer = self.layer().with_context(|| format!("the files of the image {}", self.reference))?;
        let config = self.config(&layer).to_string().into_bytes();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
            "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer)],
        });
        let manifest = manifest.to_string().into_bytes();
        let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest);
        entry["annotations"] = json!({
            "io.containerd.image.name": name,
            "org.opencontainers.image.ref.name": tag(&name),
        });
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [entry],
        });
        let docker =
            json!([{ "Config": blob(&config), "RepoTags": [self.reference], "Layers": [blob(&layer)] }]);
        let parts = [
            (blob(&layer), layer),
            (blob(&config), config),
            (blob(&manifest), manifest),
            ("index.json".to_owned(), index.to_string().into_bytes()),
            ("manifest.json".to_owned(), docker.to_string().into_bytes()),
            ("oci-layout".to_owned(), json!({ "imageLayoutVersion": "1.0.0" }).to_string().into_bytes()),
        ];
        write_archive(&parts, archive).with_context(|| format!("cannot write {}", archive.display()))
    }

    fn of_stage(stage: &str, reference: &str, binaries: &Path) -> Result<Image> {
        let stage = Stage::of_our_dockerfile(stage)?;
        let program = stage.entrypoint.first().context("the stage names an ENTRYPOINT")?.clone();
        Ok(Image {
            reference: reference.to_owned(),
            files: vec![(binaries.join(program.trim_start_matches('/')), program)],
            entrypoint: stage.entrypoint,
            command: stage.command,
            env: stage.env,
            user: stage.user,
            labels: stage.labels,
            ports: stage.ports,
        })
    }

    fn layer(&self) -> Result<Vec<u8>> {
        let mut layer = tar::Builder::new(Vec::new());
        let mut folders = BTreeSet::new();
        for (source, target) in &self.files {
            let Some(target) = target.strip_prefix('/') else {
                bail!("{target:?} is not an absolute path in the image")
            };
            let parents =
                Path::new(target).ancestors().skip(1).filter(|folder| !folder.as_os_str().is_empty());
            for folder in parents.collect::<Vec<_>>().into_iter().rev() {
                if folders.insert(folder.to_owned()) {
                    let mut header = header(tar::EntryType::Directory, 0, 0o755);
                    layer.append_data(&mut header, folder, std::io::empty())?;
                }
            }
            let content = fs::read(source).with_context(|| format!("cannot read {}", source.display()))?;
            let executable = fs::metadata(source)?.permissions().mode() & 0o111 != 0;
            let mode = if executable { 0o755 } else { 0o644 };
            let mut header = header(tar::EntryType::Regular, content.len(), mode);
            layer.append_data(&mut header, target, content.as_slice())?;
        }
        Ok(layer.into_inner()?)
    }

    fn config(&self, layer: &[u8]) -> Value {
        let env: Vec<_> = self.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let ports: BTreeMap<_, _> =
            self.ports.iter().map(|port| (format!("{port}/tcp"), json!({}))).collect();
        json!({
            // No build has a time: equal files are an equal image.
            "created": "1970-01-01T00:00:00Z",
            "architecture": architecture(),
            "os": "linux",
            "config": {
                "User": self.user,
                "ExposedPorts": ports,
                "Env": env,
                "Entrypoint": self.entrypoint,
                "Cmd": self.command,
                "WorkingDir": "/",
                "Labels": self.labels,
            },
            "rootfs": { "type": "layers", "diff_ids": [digest(layer)] },
        })
    }
}

/// The reference as containerd and the kubelet complete it: `docker.io/library/portolan:dev`.
fn full_name(reference: &str) -> Result<String> {
    let last = reference.rsplit('/').next().unwrap_or_default();
    let parts = last.split(':').chain(reference.split('/'));
    if reference.contains(char::is_whitespace) || parts.into_iter().any(str::is_empty) {
        bail!("{reference:?} is no name of an image, such as portolan:dev");
    }
    let tag = if last.contains(':') { "" } else { ":latest" };
    Ok(match reference.split_once('/') {
        None => format!("docker.io/library/{reference}{tag}"),
        Some((host, _)) if host == "localhost" || host.contains(['.', ':']) => format!("{reference}{tag}"),
        Some(_) => format!("docker.io/{reference}{tag}"),
    })
}

fn tag(full_name: &str) -> &str {
    full_name.rsplit(':').next().unwrap_or_default()
}

/// What the image formats call this machine's kind of processor.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn digest(content: &[u8]) -> String {
    format!("sha256:{}", hash(content))
}

fn blob(content: &[u8]) -> String {
    format!("blobs/sha256/{}", hash(content))
}

fn hash(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn descriptor(media_type: &str, content: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": digest(content), "size": content.len() })
}

fn header(kind: tar::EntryType, size: usize, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size as u64);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

fn write_archive(parts: &[(String, Vec<u8>)], archive: &Path) -> Result<()> {
    let folder = archive.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let unfinished =
        tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o644)).tempfile_in(folder)?;
    let mut builder = tar::Builder::new(BufWriter::new(unfinished.as_file()));
    for (name, content) in parts {
        let mut header = header(tar::EntryType::Regular, content.len(), 0o644);
        builder.append_data(&mut header, name, content.as_slice())?;
    }
    builder.into_inner()?.flush()?;
    let _written: File = unfinished.persist(archive)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    /// A small image written, and everything in its archive by name.
    fn written(image: &Image) -> BTreeMap<String, Vec<u8>> {
        let folder = tempfile::tempdir().unwrap();
        let archive = folder.path().join("image.tar");
        image.write(&archive).unwrap();
        unpacked(&fs::read(archive).unwrap())
    }

    fn unpacked(tar: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut contents = BTreeMap::new();
        for entry in tar::Archive::new(tar).entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            contents.insert(entry.path().unwrap().display().to_string(), content);
        }
        contents
    }

    fn json_of(content: &[u8]) -> Value {
        serde_json::from_slice(content).unwrap()
    }

    fn small() -> Image {
        Image {
            files: vec![
                ("/bin/sh".into(), "/bin/sh".to_owned()),
                ("Cargo.toml".into(), "/etc/a/b".to_owned()),
            ],
            entrypoint: vec!["/bin/sh".to_owned()],
            command: vec!["-c".to_owned()],
            user: "65532:65532".to_owned(),
            ports: vec![8080],
            ..Image::default().tagged("small:v1").with_env("A", "0").with_env("A", "1")
        }
    }

    #[test]
    fn both_formats_name_the_same_blobs() {
        let contents = written(&small());
        for (name, content) in &contents {
            if let Some(hash_in_name) = name.strip_prefix("blobs/sha256/") {
                assert_eq!(hash_in_name, hash(content));
            }
        }
        let docker = &json_of(&contents["manifest.json"])[0];
        assert_eq!(docker["RepoTags"][0], "small:v1");
        let index = json_of(&contents["index.json"]);
        let entry = &index["manifests"][0];
        assert_eq!(entry["annotations"]["io.containerd.image.name"], "docker.io/library/small:v1");
        let at = |digest: &Value| {
            format!("blobs/sha256/{}", digest.as_str().unwrap().trim_start_matches("sha256:"))
        };
        let manifest = &contents[&at(&entry["digest"])];
        assert_eq!(entry["size"], manifest.len());
        let manifest = json_of(manifest);
        assert_eq!(at(&manifest["config"]["digest"]), docker["Config"]);
        assert_eq!(at(&manifest["layers"][0]["digest"]), docker["Layers"][0]);
        let config = json_of(&contents[docker["Config"].as_str().unwrap()]);
        assert_eq!(
            config["rootfs"]["diff_ids"][0], manifest["layers"][0]["digest"],
            "the layer is not packed"
        );
        assert_eq!(config["config"]["Env"], json!(["A=1"]));
        assert_eq!(config["config"]["User"], "65532:65532");
        assert_eq!(config["config"]["ExposedPorts"], json!({ "8080/tcp": {} }));
        let layer = unpacked(&contents[docker["Layers"][0].as_str().unwrap()]);
        assert_eq!(layer.keys().collect::<Vec<_>>(), ["bin", "bin/sh", "etc", "etc/a", "etc/a/b"]);
        assert_eq!(layer["etc/a/b"], fs::read("Cargo.toml").unwrap());
    }

    #[test]
    fn programs_stay_programs_and_nothing_has_a_time() {
        let layer = small().layer().unwrap();
        for entry in tar::Archive::new(layer.as_slice()).entries().unwrap() {
            let entry = entry.unwrap();
            let header = entry.header();
            assert_eq!((header.mtime().unwrap(), header.uid().unwrap(), header.gid().unwrap()), (0, 0, 0));
            let expected = if entry.path().unwrap().ends_with("b") { 0o644 } else { 0o755 };
            assert_eq!(header.mode().unwrap(), expected, "{:?}", entry.path());
        }
    }

    #[test]
    fn equal_files_make_an_equal_archive() {
        let folder = tempfile::tempdir().unwrap();
        let [a, b] = ["a.tar", "b.tar"].map(|name| folder.path().join(name));
        small().write(&a).unwrap();
        small().write(&b).unwrap();
        assert_eq!(fs::read(a).unwrap(), fs::read(b).unwrap());
    }

    #[test]
    fn names_are_completed_as_the_kubelet_does() {
        for (short, full) in [
            ("portolan:dev", "docker.io/library/portolan:dev"),
            ("portolan", "docker.io/library/portolan:latest"),
            ("team/portolan:1", "docker.io/team/portolan:1"),
            ("localhost/portolan:1", "localhost/portolan:1"),
            ("registry.example.com:5000/portolan", "registry.example.com:5000/portolan:latest"),
        ] {
            assert_eq!(full_name(short).unwrap(), full);
        }
        for wrong in ["", "portolan:", "/portolan", "a b"] {
            assert!(full_name(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn our_images_are_what_the_dockerfile_says() {
        let binaries = Path::new("/binaries");
        let portolan = Image::portolan(binaries).unwrap();
        assert_eq!(portolan.files, [("/binaries/portolan".into(), "/portolan".to_owned())]);
        assert_eq!(
            (portolan.entrypoint, portolan.command),
            (vec!["/portolan".to_owned()], vec!["run".to_owned()])
        );
        assert_eq!(portolan.user, "65532:65532");
        assert!(portolan.ports.contains(&8080));
        assert_eq!(portolan.labels["org.opencontainers.image.version"], "dev");
        let echo = Image::echo(binaries).unwrap();
        assert_eq!(echo.files, [("/binaries/portolan-loadtest".into(), "/portolan-loadtest".to_owned())]);
        assert_eq!((echo.user.as_str(), echo.command), ("65532:65532", vec!["backend".to_owned()]));
    }
}
