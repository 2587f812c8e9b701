// DigitReader.swift: the model, compiled when it is first used.

import CoreML
import CoreVideo
import Foundation

public final class DigitReader {
    public let model: MLModel

    public init(configuration: MLModelConfiguration = MLModelConfiguration()) throws {
        guard let file = Bundle.module.url(forResource: "DigitReader",
            withExtension: "mlmodel") else {
            throw CocoaError(.fileNoSuchFile)
        }
        let compiled = try MLModel.compileModel(at: file)
        model = try MLModel(contentsOf: compiled, configuration: configuration)
    }

    public func predict(image: MLMultiArray) throws -> MLFeatureProvider {
        let inputs = try MLDictionaryFeatureProvider(dictionary: [
            "image": MLFeatureValue(multiArray: image),
        ])
        return try model.prediction(from: inputs)
    }
}
