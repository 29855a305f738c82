//! How does a model bundle come to serve, and go again?

use super::progress::Shown;
use super::{failed, registry, rollout, signing, skew};
use crate::cli::{Format, Model, PublishArgs};
use crate::failure::Failure;
use gavel_client::upload::{self, Blob};
use gavel_client::{AdminClient, ClientError};
use gavel_proto::wire::command::Body;
use gavel_proto::wire::{
    ActivateModel, ModelView, PublishModel, RetireModel, RollbackModel, StageModel, StatusResponse,
};
use std::path::Path;
use std::time::Duration;

/// Between two looks at the cluster.
const LOOK: Duration = Duration::from_millis(200);
/// Looks before the wait is given up: half an hour.
const LOOKS_MAX: usize = 5 * 1_800;
/// So many looks in a row see a refusal before it is believed: a member that could not fetch says so, and tries again.
const REFUSED_LOOKS: usize = 25;

/// How far a published version has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Staged {
    /// It serves.
    Active,
    /// Every member could serve it.
    Ready,
}

/// `gavel ctl model`.
pub async fn run(admin: &mut AdminClient, command: Model) -> Result<(), Failure> {
    match command {
        Model::Publish(args) => {
            let work = std::env::temp_dir().join(format!("gavel-publish-{}", gavel_client::admin::random_id()));
            let published = publish_as(admin, &args.dir, &work, &args).await;
            // It holds a copy of what the voters have.
            let _ = std::fs::remove_dir_all(&work);
            let version = published?;
            eprintln!("version {version} is accepted");
            if args.no_wait || args.no_stage {
                return Ok(());
            }
            told_when_staged(admin, version).await
        }
        Model::List => registry::list(admin).await,
        Model::Stage { version, no_wait } => {
            admin.propose(Body::StageModel(StageModel { version })).await.map_err(failed)?;
            if no_wait { Ok(()) } else { told_when_staged(admin, version).await }
        }
        Model::Activate { version, expect } => {
            let expect_active = match expect {
                Some(expect) => expect,
                None => active_version(admin).await?,
            };
            let wish = ActivateModel { version, expect_active };
            admin.propose(Body::ActivateModel(wish)).await.map_err(failed)?;
            println!("version {version} serves");
            Ok(())
        }
        Model::Canary(args) => {
            let expect_active = active_version(admin).await?;
            rollout::canary(admin, &args, expect_active).await
        }
        Model::Shadow(args) => {
            let expect_active = active_version(admin).await?;
            rollout::shadow(admin, &args, expect_active).await
        }
        Model::Rollback => rollback(admin).await,
        Model::Retire { version } => {
            admin.propose(Body::RetireModel(RetireModel { version })).await.map_err(failed)?;
            println!("version {version} never serves again");
            Ok(())
        }
        Model::Status { watch, json } => {
            let looks = if watch { registry::Looks::Many } else { registry::Looks::One };
            registry::status(admin, looks, if json { Format::Json } else { Format::Text }).await
        }
        Model::Policy(args) => signing::policy(admin, &args).await,
        Model::Keygen { file } => signing::keygen(&file),
    }
}

async fn rollback(admin: &mut AdminClient) -> Result<(), Failure> {
    let view = admin.status().await.map_err(failed)?.view.unwrap_or_default();
    if let Some(candidate) = view.rollout.and_then(|r| r.model) {
        return rollout::end(admin, candidate.version).await;
    }
    let expect_active = view.active_model.map_or(0, |m| m.version);
    admin.propose(Body::RollbackModel(RollbackModel { expect_active })).await.map_err(failed)?;
    println!("version {expect_active} no longer serves, the previous one does");
    Ok(())
}

async fn told_when_staged(admin: &AdminClient, version: u64) -> Result<(), Failure> {
    match wait_staged(admin, version).await? {
        Staged::Active => println!("version {version} serves"),
        Staged::Ready => println!("version {version} is ready; serve it: gavel ctl model activate {version}"),
    }
    Ok(())
}

/// Packs, uploads, proposes and stages; returns the version.
pub async fn publish(admin: &mut AdminClient, dir: &Path, work: &Path) -> Result<u64, Failure> {
    let args = PublishArgs {
        dir: dir.to_path_buf(),
        no_wait: false,
        no_stage: false,
        version: 0,
        uploader: String::new(),
        sign: None,
        no_skew: true,
    };
    publish_as(admin, dir, work, &args).await
}

async fn publish_as(admin: &mut AdminClient, dir: &Path, work: &Path, args: &PublishArgs) -> Result<u64, Failure> {
    let report = if args.no_skew { String::new() } else { skew::beside_active(admin, dir, work).await };
    if !report.is_empty() {
        eprintln!("{report}");
    }
    let (dir, work) = (dir.to_path_buf(), work.to_path_buf());
    let (name, blob) = tokio::task::spawn_blocking(move || pack(&dir, &work)).await.map_err(Failure::other)??;
    let signed = match &args.sign {
        Some(file) => signing::sign(file, &blob.hash, args.version)?,
        None => signing::Signed::default(),
    };
    let voters = admin.voters().await.map_err(failed)?;
    upload::upload(std::slice::from_ref(&blob), &voters, &mut Shown::default()).await.map_err(failed)?;
    let wish = PublishModel {
        hash: blob.hash.to_vec(),
        bytes: blob.bytes,
        name,
        uploader: args.uploader.clone(),
        register_only: args.no_stage,
        version: args.version,
        signature: signed.signature,
        key: signed.key,
        report,
    };
    Ok(admin.propose(Body::PublishModel(wish)).await.map_err(failed)?.number)
}

/// Opens the bundle first, so that a broken one is refused here and not on every node.
fn pack(dir: &Path, work: &Path) -> Result<(String, Blob), Failure> {
    let broken = |e: gavel_model::BundleError| Failure::damaged(format!("{}: {e}", dir.display()));
    let bundle = gavel_model::Bundle::open(dir).map_err(broken)?;
    bundle.verify_golden().map_err(broken)?;
    let name = bundle.schema().name.clone();
    let packed = gavel_model::bundle::pack_folder(dir).map_err(broken)?;
    std::fs::create_dir_all(work).map_err(Failure::io)?;
    let path = work.join("bundle.packed");
    std::fs::write(&path, packed).map_err(Failure::io)?;
    Ok((name, Blob::of_file(&path).map_err(failed)?))
}

/// Returns once the version is ready everywhere.
pub async fn wait_staged(admin: &AdminClient, version: u64) -> Result<Staged, Failure> {
    let (mut refused, mut why) = (0, "see gavel ctl status".to_owned());
    for _ in 0..LOOKS_MAX {
        if let Ok(status) = admin.status().await {
            match staged(&status, version)? {
                Look::Staged(staged) => return Ok(staged),
                Look::Refused(reason) if refused + 1 == REFUSED_LOOKS => {
                    return Err(failed(ClientError::Refused(reason)));
                }
                Look::Refused(_) => refused += 1,
                Look::UnderWay(rests) => {
                    refused = 0;
                    why = rests.unwrap_or(why);
                }
            }
        }
        tokio::time::sleep(LOOK).await;
    }
    Err(failed(ClientError::NotActive(format!("version {version}: {why}"))))
}

/// What one look at the cluster says of a version.
enum Look {
    Staged(Staged),
    /// And why some member tries something again.
    UnderWay(Option<String>),
    /// By some member, and why.
    Refused(String),
}

fn staged(status: &StatusResponse, version: u64) -> Result<Look, Failure> {
    let view = status.view.clone().unwrap_or_default();
    let is = |m: Option<&ModelView>| m.is_some_and(|m| m.version == version);
    if is(view.active_model.as_ref()) {
        return Ok(Look::Staged(Staged::Active));
    }
    let Some(pending) = view.staged_models.iter().find(|m| m.version == version) else {
        return Err(failed(ClientError::NotActive(format!("version {version} is no longer staged"))));
    };
    let refusals = || status.health.iter().flat_map(|h| &h.refusals).filter(|r| r.subject == pending.hash);
    if let Some(refusal) = refusals().find(|r| !r.rests) {
        return Ok(Look::Refused(refusal.reason.clone()));
    }
    // The first bundle activates by itself; a later one waits for its operator. What it lacks knows every replica.
    let lacks = status.models.iter().find(|m| m.model.as_ref().is_some_and(|m| m.version == version));
    let ready = view.active_model.is_some() && lacks.is_some_and(|m| m.lacks.is_empty());
    Ok(if ready { Look::Staged(Staged::Ready) } else { Look::UnderWay(refusals().next().map(|r| r.reason.clone())) })
}

async fn active_version(admin: &AdminClient) -> Result<u64, Failure> {
    let view = admin.status().await.map_err(failed)?.view.unwrap_or_default();
    Ok(view.active_model.map_or(0, |m| m.version))
}
