//! What can a person do whose operator is not supported?

/// Why an operator is refused, and what to export instead.
pub(super) fn reason(operator: &str) -> String {
    let instead = match operator {
        "If" | "Loop" | "Scan" | "SequenceAt" | "SequenceConstruct" | "SequenceEmpty" | "SplitToSequence" => {
            "a graph without branches and loops: in torch, use tensor operations instead of if and for; EmbeddingBag \
             is (table(ids) * weights.unsqueeze(-1)).sum(1)"
        }
        "TopK" | "NonZero" | "Compress" | "Unique" | "ArgMax" | "ArgMin" | "NonMaxSuppression" => {
            "a mask (Where, or a product with 0 and 1): which rows are chosen may not depend on the values"
        }
        "LSTM" | "GRU" | "RNN" => "attention over the sequence",
        "ScatterND" | "ScatterElements" | "Scatter" => {
            "Concat, Where or GatherElements instead of assignments to slices"
        }
        "RandomNormal" | "RandomUniform" | "RandomNormalLike" | "RandomUniformLike" | "Bernoulli" | "Multinomial" => {
            "the model in inference: model.eval() before the export"
        }
        "QLinearMatMul" | "MatMulInteger" | "DynamicQuantizeLinear" | "QuantizeLinear" | "ConvInteger" => {
            "float weights: the bundle's ranker_options.precision quantises"
        }
        "Conv" | "ConvTranspose" | "MaxPool" | "AveragePool" => "MatMul, or ReduceMean over the sequence",
        "TreeEnsembleClassifier" | "TreeEnsembleRegressor" | "TreeEnsemble" => {
            "LightGBM's own model file: docs/tree-rankers.md"
        }
        _ => return "is not supported; docs/model-operators.md lists what is".to_owned(),
    };
    format!("is not supported; export {instead}. docs/model-operators.md lists what is")
}
