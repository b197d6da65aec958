//! What is told of the server and its models.

use super::{
    Asked, Reply, find,
    messages::{
        DataType, InferStatistics, ModelConfig, ModelConfigRequest, ModelConfigResponse, ModelDynamicBatching,
        ModelInput, ModelInstanceGroup, ModelMetadataRequest, ModelMetadataResponse, ModelOutput, ModelReadyRequest,
        ModelReadyResponse, ModelStatistics, ModelStatisticsRequest, ModelStatisticsResponse, ModelTransactionPolicy,
        ModelVersionPolicy, ServerLiveResponse, ServerMetadataResponse, ServerReadyResponse, StatisticDuration,
        model_config::SchedulingChoice,
        model_instance_group::Kind as Device,
        model_metadata_response::TensorMetadata,
        model_version_policy::{Latest, PolicyChoice},
    },
};
use crate::{
    metrics::Total,
    models::{Known, ModelState},
    open_inference::{
        Interface, SERVER,
        describe::{BACKEND, EXTENSIONS, TensorInfo, inputs, max_batch_size, output},
        known,
    },
    service::Failure,
};

pub(super) async fn live(_: Asked) -> Result<Reply, Failure> {
    Ok(Reply::of(&ServerLiveResponse { live: true }))
}

pub(super) async fn ready(asked: Asked) -> Result<Reply, Failure> {
    Ok(Reply::of(&ServerReadyResponse { ready: asked.service.models.is_ready() && !*asked.service.closing.borrow() }))
}

pub(super) async fn server(_: Asked) -> Result<Reply, Failure> {
    Ok(Reply::of(&ServerMetadataResponse {
        name: SERVER.into(),
        version: env!("CARGO_PKG_VERSION").into(),
        extensions: EXTENSIONS.map(String::from).into(),
    }))
}

/// A model that is not there is not ready, which is no error.
pub(super) async fn model_ready(asked: Asked) -> Result<Reply, Failure> {
    let ModelReadyRequest { name, version } = asked.read()?;
    let known = known(&asked.service.models, &name, &version).ok().flatten();
    let ready = known.is_some_and(|known| known.state == ModelState::Ready);
    Ok(Reply::of(&ModelReadyResponse { ready }))
}

pub(super) async fn metadata(asked: Asked) -> Result<Reply, Failure> {
    let ModelMetadataRequest { name, version } = asked.read()?;
    let (served, interface) = asked.service.find(&asked.call, |models| find(models, &name, &version)).await?;
    let tensor = |tensor: &TensorInfo| TensorMetadata {
        name: tensor.name.into(),
        datatype: tensor.datatype.into(),
        shape: tensor.shape(),
    };
    Ok(Reply::of(&ModelMetadataResponse {
        name,
        versions: asked.service.models.versions(&served.model.card.id),
        platform: BACKEND.into(),
        inputs: inputs(interface).iter().map(tensor).collect(),
        outputs: vec![tensor(&output(&served.model.card.head, interface))],
    }))
}

pub(super) async fn configuration(asked: Asked) -> Result<Reply, Failure> {
    let ModelConfigRequest { name, version } = asked.read()?;
    let (served, interface) = asked.service.find(&asked.call, |models| find(models, &name, &version)).await?;
    let input = |TensorInfo { name, datatype, dims, optional, .. }| ModelInput {
        name: name.into(),
        data_type: data_type(datatype).into(),
        dims,
        optional,
    };
    let TensorInfo { name: output, datatype, dims, .. } = output(&served.model.card.head, interface);
    let config = ModelConfig {
        backend: BACKEND.into(),
        version_policy: Some(ModelVersionPolicy {
            policy_choice: Some(PolicyChoice::Latest(Latest { num_versions: 1 })),
        }),
        max_batch_size: max_batch_size(interface, asked.service.config.max_inputs),
        input: inputs(interface).into_iter().map(input).collect(),
        output: vec![ModelOutput { name: output.into(), data_type: data_type(datatype).into(), dims }],
        instance_group: vec![ModelInstanceGroup { name: name.clone(), count: 1, kind: Device::Cpu.into() }],
        model_transaction_policy: Some(ModelTransactionPolicy { decoupled: interface == Interface::Generation }),
        scheduling_choice: Some(SchedulingChoice::DynamicBatching(ModelDynamicBatching::default())),
        name,
        ..ModelConfig::default()
    };
    Ok(Reply::of(&ModelConfigResponse { config: Some(config) }))
}

fn data_type(datatype: &str) -> DataType {
    match datatype {
        "BYTES" => DataType::TypeString,
        "INT64" => DataType::TypeInt64,
        "BOOL" => DataType::TypeBool,
        _ => DataType::TypeFp32,
    }
}

/// Of a model, or of all where none is named.
pub(super) async fn statistics(asked: Asked) -> Result<Reply, Failure> {
    let ModelStatisticsRequest { name, version } = asked.read()?;
    let models = &asked.service.models;
    let model_stats = match name.as_str() {
        "" => models.known().iter().map(|known| statistics_of(&known.name, known)).collect(),
        name => known(models, name, &version)?.iter().map(|known| statistics_of(name, known)).collect(),
    };
    Ok(Reply::of(&ModelStatisticsResponse { model_stats }))
}

fn statistics_of(name: &str, known: &Known) -> ModelStatistics {
    let tally = &known.tally;
    let duration = |total: &Total| Some(StatisticDuration { count: total.count(), ns: total.nanoseconds() });
    ModelStatistics {
        name: name.into(),
        version: known.version.clone(),
        last_inference: tally.last(),
        inference_count: tally.sequences(),
        execution_count: tally.batches(),
        inference_stats: Some(InferStatistics {
            success: duration(&tally.success),
            fail: duration(&tally.fail),
            queue: duration(&tally.queue),
            compute_input: duration(&tally.input),
            compute_infer: duration(&tally.infer),
            compute_output: duration(&tally.output),
            cache_hit: duration(&tally.cache_hit),
            cache_miss: duration(&tally.cache_miss),
        }),
    }
}
