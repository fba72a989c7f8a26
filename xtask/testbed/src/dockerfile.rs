//! What the Dockerfile says: it is the one place where the images are described, also for those made without it.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};

const DOCKERFILE: &str = include_str!("../../../Dockerfile");

/// How a container of one stage starts.
#[derive(Debug, Default)]
pub(crate) struct Stage {
    pub(crate) entrypoint: Vec<String>,
    pub(crate) command: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) user: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) ports: Vec<u16>,
}

/// The variables that the Dockerfile sets for every build of the project's programs: flags of the compiler and the
/// profile, by which a release binary is static and small.
///
/// # Errors
/// When the Dockerfile has no stage `toolchain`, or it cannot be read.
pub fn image_build_variables() -> Result<Vec<(String, String)>> {
    let mut variables = Vec::new();
    for (word, rest) in instructions(DOCKERFILE, "toolchain")? {
        if word == "ENV" {
            variables.extend(assignments(&rest)?);
        }
    }
    Ok(variables)
}

impl Stage {
    /// A final stage of the project's Dockerfile: one on `scratch`.
    pub(crate) fn of_our_dockerfile(name: &str) -> Result<Stage> {
        Stage::parse(DOCKERFILE, name).with_context(|| format!("the stage {name:?} of the Dockerfile"))
    }

    /// Anything that this does not understand is an error: an image that quietly lacks it would be another image.
    fn parse(dockerfile: &str, name: &str) -> Result<Stage> {
        let mut stage = Stage::default();
        let mut variables = BTreeMap::new();
        for (word, rest) in instructions(dockerfile, name)? {
            match word.as_str() {
                "FROM" if rest.starts_with("scratch ") => {}
                "ARG" => variables.extend(assignments(&rest)?),
                // The binary, which the caller names.
                "COPY" if rest.ends_with(" /image/ /") => {}
                "USER" => stage.user = rest,
                "ENV" => stage.env.extend(assignments(&substituted(&rest, &variables))?),
                "LABEL" => stage.labels.extend(assignments(&substituted(&rest, &variables))?),
                "EXPOSE" => {
                    stage.ports = rest.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
                }
                "ENTRYPOINT" => stage.entrypoint = serde_json::from_str(&rest)?,
                "CMD" => stage.command = serde_json::from_str(&rest)?,
                _ => bail!("`{word} {rest}` is not understood here: teach it to testbed/src/dockerfile.rs"),
            }
        }
        Ok(stage)
    }
}

/// The instructions of one stage, with their lines joined and without comments.
fn instructions(dockerfile: &str, stage: &str) -> Result<Vec<(String, String)>> {
    let lines = dockerfile.lines().filter(|line| !line.trim_start().starts_with('#'));
    let text = lines.collect::<Vec<_>>().join("\n").replace("\\\n", " ");
    let all = text.lines().filter_map(|line| line.trim().split_once(char::is_whitespace));
    let suffix = format!(" AS {stage}");
    let mut of_stage = all
        .map(|(word, rest)| (word.to_owned(), rest.trim().to_owned()))
        .skip_while(|(word, rest)| word != "FROM" || !rest.ends_with(&suffix));
    let Some(from) = of_stage.next() else { bail!("the Dockerfile has no stage {stage:?}") };
    Ok([from].into_iter().chain(of_stage.take_while(|(word, _)| word != "FROM")).collect())
}

/// `NAME=value OTHER="a value"`.
fn assignments(text: &str) -> Result<Vec<(String, String)>> {
    let mut assignments = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (name, after) = rest.split_once('=').with_context(|| format!("{rest:?} is not NAME=VALUE"))?;
        let (value, left) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').with_context(|| format!("{rest:?} has an open quote"))?,
            None => after.split_once(char::is_whitespace).unwrap_or((after, "")),
        };
        assignments.push((name.to_owned(), value.to_owned()));
        rest = left.trim_start();
    }
    Ok(assignments)
}

fn substituted(text: &str, variables: &BTreeMap<String, String>) -> String {
    variables.iter().fold(text.to_owned(), |text, (name, value)| text.replace(&format!("${{{name}}}"), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = "FROM rust AS toolchain\nENV A=\"x y\" \\\n    B=1\n\n# Words.\nFROM scratch AS app\nARG V=dev\n\
        LABEL name=\"app\" \\\n      version=\"${V}\"\nCOPY --from=build /image/ /\nUSER 1:1\nEXPOSE 80 81\n\
        ENTRYPOINT [\"/app\"]\nCMD [\"run\", \"-v\"]\nFROM app AS other\nUSER 2\n";

    #[test]
    fn a_stage_is_read_to_its_end() {
        let stage = Stage::parse(SAMPLE, "app").unwrap();
        assert_eq!(
            (stage.entrypoint, stage.command),
            (vec!["/app".to_owned()], vec!["run".to_owned(), "-v".to_owned()])
        );
        assert_eq!((stage.user.as_str(), stage.ports), ("1:1", vec![80, 81]));
        assert_eq!(stage.labels["version"], "dev");
    }

    #[test]
    fn what_is_not_understood_is_named() {
        let error = |text: &str, stage: &str| format!("{:#}", Stage::parse(text, stage).unwrap_err());
        assert!(error(SAMPLE, "none").contains("none"));
        assert!(error(SAMPLE, "other").contains("FROM app AS other"), "only stages on scratch");
        assert!(error("FROM scratch AS a\nVOLUME /x\n", "a").contains("VOLUME /x"));
        assert!(error("FROM scratch AS a\nENV A\n", "a").contains("NAME=VALUE"));
    }

    #[test]
    fn builds_are_static_and_small() {
        let variables = image_build_variables().unwrap();
        let value =
            |name: &str| variables.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str());
        assert!(value("RUSTFLAGS").unwrap().contains("+crt-static"));
        assert_eq!(value("CARGO_PROFILE_RELEASE_STRIP"), Some("symbols"));
    }
}
