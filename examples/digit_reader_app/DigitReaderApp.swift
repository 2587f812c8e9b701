// DigitReaderApp.swift: draw a digit, and the model reads it. For iOS 16 and macOS 13.
//
// In an app project of Xcode: add the package DigitReader that lies beside this file, and put this
// file in the place of the one with `@main`. It was parsed by a grammar of Swift, not compiled.

import CoreGraphics
import CoreML
import DigitReader
import SwiftUI

@main
struct DigitReaderApp: App {
    var body: some Scene {
        WindowGroup { ReaderView() }
    }
}

struct ReaderView: View {
    @State private var strokes: [[CGPoint]] = []
    @State private var reading = Reading.nothing
    private let side: CGFloat = 280

    var body: some View {
        VStack(spacing: 16) {
            board
            Text(reading.text).font(.largeTitle).monospacedDigit()
            ForEach(reading.scores.indices, id: \.self) { digit in
                HStack {
                    Text("\(digit)").monospacedDigit()
                    ProgressView(value: reading.scores[digit])
                }
            }
            Button("Clear") {
                strokes = []
                reading = .nothing
            }
        }
        .padding()
    }

    private var board: some View {
        Canvas { context, _ in
            for stroke in strokes {
                var path = Path()
                path.addLines(stroke)
                context.stroke(
                    path, with: .color(.white),
                    style: StrokeStyle(lineWidth: side / 14, lineCap: .round, lineJoin: .round))
            }
        }
        .frame(width: side, height: side)
        .background(.black)
        .gesture(
            DragGesture(minimumDistance: 0)
                .onChanged { drag in
                    if drag.translation == .zero || strokes.isEmpty { strokes.append([]) }
                    strokes[strokes.count - 1].append(drag.location)
                }
                .onEnded { _ in read() })
    }

    private func read() {
        do {
            let picture = try Picture.of(strokes, side: side)
            reading = try Reading(DigitReader().predict(image: picture))
        } catch {
            reading = Reading(text: error.localizedDescription, scores: [])
        }
    }
}

/// What the model says of a picture.
struct Reading {
    var text: String
    var scores: [Double]

    static let nothing = Reading(text: "Draw a digit", scores: [])

    init(text: String, scores: [Double]) {
        self.text = text
        self.scores = scores
    }

    init(_ features: MLFeatureProvider) throws {
        guard let digits = features.featureValue(for: "digit")?.multiArrayValue else {
            throw CocoaError(.featureUnsupported)
        }
        scores = (0..<digits.count).map { digits[$0].doubleValue }
        let best = scores.indices.max { scores[$0] < scores[$1] } ?? 0
        text = "\(best), \(Int((100 * scores[best]).rounded())) %"
    }
}

/// Strokes as the model takes them: 40 x 40 grey values from 0 to 1, white on black.
enum Picture {
    static let size = 40

    static func of(_ strokes: [[CGPoint]], side: CGFloat) throws -> MLMultiArray {
        guard
            let context = CGContext(
                data: nil, width: size, height: size, bitsPerComponent: 8, bytesPerRow: size,
                space: CGColorSpaceCreateDeviceGray(), bitmapInfo: CGImageAlphaInfo.none.rawValue)
        else {
            throw CocoaError(.featureUnsupported)
        }
        context.setFillColor(gray: 0, alpha: 1)
        context.fill(CGRect(x: 0, y: 0, width: size, height: size))
        // CoreGraphics counts rows from below
        context.translateBy(x: 0, y: CGFloat(size))
        context.scaleBy(x: CGFloat(size) / side, y: -CGFloat(size) / side)
        context.setStrokeColor(gray: 1, alpha: 1)
        context.setLineWidth(side / 14)
        context.setLineCap(.round)
        context.setLineJoin(.round)
        for stroke in strokes where !stroke.isEmpty {
            context.addLines(between: stroke)
            context.strokePath()
        }
        let picture = try MLMultiArray(
            shape: [1, NSNumber(value: size), NSNumber(value: size), 1], dataType: .float32)
        guard let bytes = context.data?.assumingMemoryBound(to: UInt8.self) else {
            throw CocoaError(.featureUnsupported)
        }
        for index in 0..<(size * size) {
            picture[index] = NSNumber(value: Float(bytes[index]) / 255)
        }
        return picture
    }
}
