// Super-resolution at any scale on iOS with Core ML: encode a picture once, then render any region at
// any scale. Takes encode and render of a bundle of a query network, such as
// scaleport-any.bundle/coreml/fp16, added to the project as encode.mlpackage and render.mlpackage.

import CoreML

final class Upscaler {
    private let encoder: MLModel
    private let decoder: MLModel

    /// - Parameters: compiled programs: `Bundle.main.url(forResource: "encode", withExtension: "mlmodelc")`
    init(encode: URL, render: URL, units: MLComputeUnits = .all) throws {
        let configuration = MLModelConfiguration()
        configuration.computeUnits = units
        encoder = try MLModel(contentsOf: encode, configuration: configuration)
        decoder = try MLModel(contentsOf: render, configuration: configuration)
    }

    /// Opens a picture, 3 planes of floats in 0...1: the encoder runs once.
    func open(planes: [Float], height: Int, width: Int) throws -> View {
        let image = try array(planes, [1, 3, height, width])
        let features = try encoder.prediction(from: MLDictionaryFeatureProvider(dictionary: ["image": image]))
        return View(upscaler: self, features: features, height: height, width: width)
    }

    struct View {
        let upscaler: Upscaler
        let features: MLFeatureProvider
        let height: Int
        let width: Int

        /// Planes of a region of the picture at a scale, not clamped: 3 x rows x columns.
        func render(scale: Double, rows: Range<Int>, columns: Range<Int>) throws -> [Float] {
            let y = Axis(n: height, length: outputLength(height, scale), start: rows.lowerBound, stop: rows.upperBound)
            let x = Axis(n: width, length: outputLength(width, scale), start: columns.lowerBound, stop: columns.upperBound)
            var inputs: [String: Any] = [
                "row_index": try indices(y.index), "row_offset": try array(y.offset, [y.offset.count]),
                "col_index": try indices(x.index), "col_offset": try array(x.offset, [x.offset.count]),
                "scale": try array([y.scale, x.scale], [2]),
            ]
            for name in features.featureNames { inputs[name] = features.featureValue(for: name) }
            let known = upscaler.decoder.modelDescription.inputDescriptionsByName
            inputs = inputs.filter { known[$0.key] != nil }
            let result = try upscaler.decoder.prediction(from: MLDictionaryFeatureProvider(dictionary: inputs))
            let pixels = result.featureValue(for: "upscaled")!.multiArrayValue!
            return (0..<pixels.count).map { pixels[$0].floatValue }
        }
    }
}

private func array(_ values: [Float], _ shape: [Int]) throws -> MLMultiArray {
    let made = try MLMultiArray(shape: shape.map { NSNumber(value: $0) }, dataType: .float32)
    for (i, value) in values.enumerated() { made[i] = NSNumber(value: value) }
    return made
}

private func indices(_ values: [Int32]) throws -> MLMultiArray {
    let made = try MLMultiArray(shape: [NSNumber(value: values.count)], dataType: .int32)
    for (i, value) in values.enumerated() { made[i] = NSNumber(value: value) }
    return made
}
