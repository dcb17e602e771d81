"""The public names, all in one place: `compiled_loss` takes them from here when the first is asked for."""

import compiled_loss.data.sources as sources
import compiled_loss.overlaps as overlaps
import compiled_loss.parts as parts
from compiled_loss.assign.atss import ATSS
from compiled_loss.assign.candidates import Candidates
from compiled_loss.assign.centres import NearCentre
from compiled_loss.assign.dense import to_dense
from compiled_loss.assign.dynamic import DynamicSoftLabel, SimOTA
from compiled_loss.assign.parts import Assigner, Pairs
from compiled_loss.assign.regions import InBox
from compiled_loss.assign.scheduled import Scheduled
from compiled_loss.assign.select import select
from compiled_loss.assign.task_aligned import TaskAligned
from compiled_loss.data.collation import collate
from compiled_loss.data.padded import PaddedTargets
from compiled_loss.data.plan import TargetPlan
from compiled_loss.data.rows import pad_rows
from compiled_loss.data.targets import Targets
from compiled_loss.losses.comparing import OneMinus
from compiled_loss.losses.dense import DenseLoss
from compiled_loss.losses.detection import DetectionLoss
from compiled_loss.losses.end_to_end import EndToEndLoss
from compiled_loss.losses.oriented import OrientedLoss
from compiled_loss.losses.pose import PoseLoss
from compiled_loss.losses.residual_pose import ResidualPoseLoss
from compiled_loss.losses.segmentation import SegmentationLoss
from compiled_loss.losses.wise import WIoU
from compiled_loss.ragged import Filled, fill, unfill
from compiled_loss.suppression import suppress
from compiled_loss.terms.classification import BinaryCrossEntropy
from compiled_loss.terms.focal import FocalLoss, QualityFocalLoss, VarifocalLoss
from compiled_loss.terms.rotated import KFIoU, KullbackLeibler
from compiled_loss.types import (
    Assignment,
    Decoded,
    DenseAssignment,
    Detections,
    EndToEndOutput,
    LossOutput,
    Predictions,
)

__all__ = [
    "ATSS",
    "Assigner",
    "Assignment",
    "BinaryCrossEntropy",
    "Candidates",
    "Decoded",
    "DenseAssignment",
    "DenseLoss",
    "DetectionLoss",
    "Detections",
    "DynamicSoftLabel",
    "EndToEndLoss",
    "EndToEndOutput",
    "Filled",
    "FocalLoss",
    "InBox",
    "KFIoU",
    "KullbackLeibler",
    "LossOutput",
    "NearCentre",
    "OneMinus",
    "OrientedLoss",
    "PaddedTargets",
    "Pairs",
    "PoseLoss",
    "Predictions",
    "QualityFocalLoss",
    "ResidualPoseLoss",
    "Scheduled",
    "SegmentationLoss",
    "SimOTA",
    "TargetPlan",
    "Targets",
    "TaskAligned",
    "VarifocalLoss",
    "WIoU",
    "collate",
    "fill",
    "overlaps",
    "pad_rows",
    "parts",
    "select",
    "sources",
    "suppress",
    "to_dense",
    "unfill",
]
