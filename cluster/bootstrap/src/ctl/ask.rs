//! What does the cluster answer to this request?

use super::failed;
use crate::cli::AskArgs;
use crate::failure::Failure;
use crate::output;
use gavel_client::{AdminClient, AdsClient};
use gavel_proto::wire::feature_value::Value;
use gavel_proto::wire::{AdRequest, Feature, FeatureValue, RequestTerm, Role};

/// `gavel ctl ad`.
pub async fn ad(admin: &AdminClient, args: AskArgs) -> Result<(), Failure> {
    let mut client = client(admin, &args).await?;
    let response = client.ads(request(args)?).await.map_err(failed)?;
    println!("{:#}", output::slate(&response));
    Ok(())
}

/// `gavel ctl explain`.
pub async fn explain(admin: &AdminClient, args: AskArgs) -> Result<(), Failure> {
    let mut client = client(admin, &args).await?;
    let response = client.explain(request(args)?).await.map_err(failed)?;
    println!("{:#}", output::explained(&response));
    Ok(())
}

async fn client(admin: &AdminClient, args: &AskArgs) -> Result<AdsClient, Failure> {
    if let Some(address) = &args.router {
        return AdsClient::connect(address).map_err(failed);
    }
    let view = admin.status().await.map_err(failed)?.view.unwrap_or_default();
    let router = view.members.into_iter().find(|m| m.role() == Role::Router && m.alive && !m.draining);
    let router = router.ok_or_else(|| Failure::other("no router is alive"))?;
    AdsClient::connect(&router.address).map_err(failed)
}

fn request(args: AskArgs) -> Result<AdRequest, Failure> {
    let mut terms = Vec::new();
    for text in &args.term {
        let (dimension, values) = pair(text)?;
        terms.push(RequestTerm { dimension, values: values.split(',').map(str::to_owned).collect(), number: None });
    }
    let mut context = Vec::new();
    for text in &args.context {
        let (name, value) = pair(text)?;
        context.push(Feature { name, value: Some(FeatureValue { value: Some(Value::Category(value)) }) });
    }
    Ok(AdRequest {
        user_id: args.user,
        placement: args.placement,
        context,
        terms,
        slots: args.slots,
        deadline_ms: args.deadline_ms,
        seed: args.seed,
        ..AdRequest::default()
    })
}

fn pair(text: &str) -> Result<(String, String), Failure> {
    let parts = text.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    parts.ok_or_else(|| Failure::usage(format!("{text:?} is not NAME=VALUE")))
}
