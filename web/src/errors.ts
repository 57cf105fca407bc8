/** Errors that a caller can act on. Each message is one line and says what to do next. */
export class ScaleportError extends Error {
  override name = "ScaleportError";
}

/** A scale, size or region is out of range. */
export class ScaleError extends ScaleportError {
  override name = "ScaleError";
}

/** A bundle is damaged, of an unknown version, or lacks a graph. */
export class ArtifactError extends ScaleportError {
  override name = "ArtifactError";
}

/** The browser or ONNX Runtime cannot do what was asked. */
export class BackendError extends ScaleportError {
  override name = "BackendError";
}

/** A picture is empty or of the wrong shape. */
export class ImageError extends ScaleportError {
  override name = "ImageError";
}

/** The rendering was cancelled by its `signal`. */
export class Cancelled extends ScaleportError {
  override name = "Cancelled";
}
