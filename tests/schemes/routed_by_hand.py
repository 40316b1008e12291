"""What of 80 models AdamW must train among their matrices, judged by hand from class and use.

Under each model stand the tensors with two axes that are no map between hidden spaces; N is a
number. Not listed are the weights of ``nn.Embedding``, which are tables, and what is too thin for
Muon (a side below 4, or more than 128 to 1). Every other tensor with two axes is a matrix for Muon.
"""

VISION = {
    "vit_base_patch16_224": ["head"],
    "deit_base_distilled_patch16_224": ["head", "head_dist"],
    "swin_tiny_patch4_window7_224": ["*.relative_position_bias_table", "head.fc"],
    "swinv2_cr_tiny_224": ["head.fc"],
    "convnext_tiny": ["head.fc"],
    "resnet50": ["fc"],
    "regnety_008": ["head.fc"],
    "efficientnet_b0": ["classifier"],
    "mobilenetv3_large_100": ["classifier"],
    "mixer_b16_224": ["head"],
    "resmlp_12_224": ["head"],
    "cait_xxs24_224": ["head"],
    "xcit_nano_12_p16_224": ["head"],
    "beit_base_patch16_224": ["*.relative_position_bias_table", "head"],
    "eva02_base_patch14_224": [],
    "volo_d1_224": ["aux_head", "head"],
    "levit_128": ["*.attention_biases", "head.linear", "head_dist.linear"],
    "efficientformer_l1": ["*.attention_biases", "head", "head_dist"],
    "sequencer2d_s": ["head.fc"],
    "vit_base_patch16_siglip_224": [],
    "crossvit_tiny_240": ["head.N"],
}

TEXT = {
    "BertForMaskedLM": [],  # its decoder is the embedding
    "BertForSequenceClassification": ["classifier"],
    "GPT2LMHeadModel": [],
    "LlamaForCausalLM": ["lm_head"],
    "LlamaForSequenceClassification": ["score"],
    "T5ForConditionalGeneration": [],
    "RobertaForSequenceClassification": ["classifier.dense", "classifier.out_proj"],
    "AlbertForMaskedLM": [],
    "DebertaV2ForTokenClassification": ["classifier"],
    "DistilBertForQuestionAnswering": ["qa_outputs"],
    "XLNetLMHeadModel": ["*.rel_attn.r_?_bias"],
    "BartForConditionalGeneration": [],
    "OPTForCausalLM": [],
    "FalconForCausalLM": [],
    "GPTNeoXForCausalLM": ["lm_head"],
    "ModernBertForMaskedLM": ["head.dense"],  # its authors call it a head
    "Gemma2ForCausalLM": [],
    "Qwen2ForCausalLM": ["lm_head"],
}

SPEECH = {
    "Wav2Vec2ForCTC": ["lm_head"],
    "Wav2Vec2ForPreTraining": [],
    "HubertForSequenceClassification": ["classifier"],
    "WhisperForConditionalGeneration": [],
    "SpeechT5ForTextToSpeech": ["*.feat_out", "*.prob_out"],
    "EncodecModel": [],
    "WavLMForXVector": ["classifier", "objective"],
    "ASTForAudioClassification": ["classifier.dense"],
    "ParakeetForCTC": ["*.self_attn.bias_u", "*.self_attn.bias_v"],
}

SEVERAL_SENSES = {
    "CLIPModel": [],
    "SiglipModel": ["text_model.head", "vision_model.head.mlp.fc2"],  # what the towers give
    "Blip2ForConditionalGeneration": [],
    "LlavaForConditionalGeneration": ["lm_head"],
    "LayoutLMv3ForTokenClassification": ["*.rel_pos_bias", "*.rel_pos_?_bias", "classifier"],
    "ViltForQuestionAnswering": ["classifier.N"],
    "OwlViTForObjectDetection": ["class_head.*", "box_head.*"],
    "Qwen2VLForConditionalGeneration": ["lm_head"],
}

PIXELS = {
    "DetrForObjectDetection": ["class_labels_classifier", "bbox_predictor.*"],
    "DeformableDetrForObjectDetection": ["model.level_embed", "class_embed.N", "bbox_embed.*"],
    "Mask2FormerForUniversalSegmentation": [
        "*.relative_position_bias_table",
        "*.level_embed",
        "class_predictor",
    ],
    "SamModel": ["*.positional_embedding", "*.rel_pos_?", "*.iou_prediction_head.*"],
    "SegformerForSemanticSegmentation": [],
    "ViTMAEForPreTraining": ["decoder.decoder_pred"],
    "YolosForObjectDetection": ["class_labels_classifier.*", "bbox_predictor.*"],
    "DPTForDepthEstimation": [],
}

EXPERTS = {
    "MixtralForCausalLM": ["*.gate", "lm_head"],
    "Qwen2MoeForCausalLM": ["*.mlp.gate", "lm_head"],
    "SwitchTransformersForConditionalGeneration": ["*.router.classifier"],
    "DeepseekV3ForCausalLM": ["*.mlp.gate", "lm_head"],
    "GptOssForCausalLM": ["*.router", "*_proj_bias", "lm_head"],
    "JetMoeForCausalLM": ["*.router.layer"],
    "Llama4ForCausalLM": ["*.router", "lm_head"],
}

STATE_SPACES = {
    "MambaForCausalLM": ["*.A_log"],
    "Mamba2ForCausalLM": ["lm_head"],
    "FalconMambaForCausalLM": ["*.A_log"],
    "JambaForCausalLM": ["*.A_log", "*.router", "lm_head"],
    "RwkvForCausalLM": ["head"],
    "RecurrentGemmaForCausalLM": ["*_gate_bias"],
    "Zamba2ForCausalLM": [],
    "PatchTSTForPrediction": ["*.position_enc", "head.projection"],
    "DecisionTransformerModel": ["predict_*"],
}

MODELS = {**VISION, **TEXT, **SPEECH, **SEVERAL_SENSES, **PIXELS, **EXPERTS, **STATE_SPACES}

SAMPLE = (
    "deit_base_distilled_patch16_224",
    "levit_128",
    "LlamaForCausalLM",
    "WavLMForXVector",
    "SiglipModel",
    "DeformableDetrForObjectDetection",
    "GptOssForCausalLM",
    "MambaForCausalLM",
)
