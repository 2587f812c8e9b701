// GridSampler.swift: the class of the digit reader's custom layer, whole.
//
// `mlferry scaffold digits_stn.mlmodel --app DigitReader ...` writes a Swift package with the frame
// of this class; this file goes in its place. It is a port of grid_sampler.py. It was parsed by a
// grammar of Swift, not compiled: the package's tests, on a Mac, compare it with the values of Python.

import CoreML
import Foundation

/// Samples the image bilinearly at a grid moved by theta.
@objc(GridSampler)
final class GridSampler: NSObject, MLCustomLayer {
    let outputHeight: Int
    let outputWidth: Int

    required init(parameters: [String: Any]) throws {
        guard let outputHeight = parameters["output_height"] as? Int,
            let outputWidth = parameters["output_width"] as? Int
        else {
            throw GridSampler.failure("no Int parameters output_height and output_width")
        }
        self.outputHeight = outputHeight
        self.outputWidth = outputWidth
        super.init()
    }

    func setWeightData(_ weights: [Data]) throws {
        guard weights.isEmpty else {
            throw GridSampler.failure("\(weights.count) weights, not 0")
        }
    }

    func outputShapes(forInputShapes inputShapes: [[NSNumber]]) throws -> [[NSNumber]] {
        guard inputShapes.count == 2, inputShapes[0].count == 4 else {
            throw GridSampler.failure("takes images of four axes, and theta")
        }
        let image = inputShapes[0]  // batch, height, width, channels
        return [[image[0], NSNumber(value: outputHeight), NSNumber(value: outputWidth), image[3]]]
    }

    func evaluate(inputs: [MLMultiArray], outputs: [MLMultiArray]) throws {
        let images = inputs[0]
        let thetas = inputs[1]
        let sampled = outputs[0]
        let shape = images.shape.map { $0.intValue }
        let (batch, height, width, channels) = (shape[0], shape[1], shape[2], shape[3])
        let steps = images.strides.map { $0.intValue }
        let thetaSteps = thetas.strides.map { $0.intValue }
        let madeSteps = sampled.strides.map { $0.intValue }
        let pixels = images.dataPointer.assumingMemoryBound(to: Float.self)
        let theta = thetas.dataPointer.assumingMemoryBound(to: Float.self)
        let made = sampled.dataPointer.assumingMemoryBound(to: Float.self)

        for n in 0..<batch {
            let t = (0..<6).map { theta[n * thetaSteps[0] + $0 * thetaSteps[1]] }
            for row in 0..<outputHeight {
                let gy = GridSampler.place(row, of: outputHeight)
                for column in 0..<outputWidth {
                    let gx = GridSampler.place(column, of: outputWidth)
                    let x = (t[0] * gx + t[1] * gy + t[2] + 1) / 2 * Float(width - 1)
                    let y = (t[3] * gx + t[4] * gy + t[5] + 1) / 2 * Float(height - 1)
                    let left = x.rounded(.down)
                    let top = y.rounded(.down)
                    for channel in 0..<channels {
                        var total: Float = 0
                        for (cornerY, partY) in [(top, 1 - (y - top)), (top + 1, y - top)] {
                            for (cornerX, partX) in [(left, 1 - (x - left)), (left + 1, x - left)] {
                                // pixels outside count as zero
                                guard cornerX >= 0, cornerX < Float(width), cornerY >= 0,
                                    cornerY < Float(height)
                                else { continue }
                                let at =
                                    n * steps[0] + Int(cornerY) * steps[1]
                                    + Int(cornerX) * steps[2] + channel * steps[3]
                                total += partY * partX * pixels[at]
                            }
                        }
                        let at =
                            n * madeSteps[0] + row * madeSteps[1] + column * madeSteps[2]
                            + channel * madeSteps[3]
                        made[at] = total
                    }
                }
            }
        }
    }

    /// From -1 for the first of some places to 1 for the last.
    private static func place(_ index: Int, of count: Int) -> Float {
        count > 1 ? -1 + 2 * Float(index) / Float(count - 1) : -1
    }

    private static func failure(_ what: String) -> NSError {
        NSError(
            domain: "GridSampler", code: 1, userInfo: [NSLocalizedDescriptionKey: what])
    }
}
