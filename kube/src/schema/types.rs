//! The fields of the core kinds, as Kubernetes 1.34 has them (k8s.io/api v0.34: core/v1, apps/v1, batch/v1,
//! discovery/v1, meta/v1).
//!
//! A field is written as `name`, `name:Type`, `name:[Type]` for a list of them, `name:{}` for a map whose keys people
//! choose, and `name:*` for what is not looked into.

/// Kinds, with the version that their fields are of.
pub(super) const KINDS: &[(&str, &str, &str)] = &[
    ("v1", "Namespace", "spec:NamespaceSpec"),
    ("v1", "Node", "spec:NodeSpec"),
    ("v1", "Pod", "spec:PodSpec"),
    ("v1", "Service", "spec:ServiceSpec"),
    ("v1", "Endpoints", "subsets:[EndpointSubset]"),
    (
        "v1",
        "ServiceAccount",
        "automountServiceAccountToken imagePullSecrets:[LocalObjectReference] secrets:[ObjectReference]",
    ),
    ("v1", "ConfigMap", "binaryData:{} data:{} immutable"),
    ("apps/v1", "Deployment", "spec:DeploymentSpec"),
    ("apps/v1", "StatefulSet", "spec:StatefulSetSpec"),
    ("apps/v1", "ReplicaSet", "spec:ReplicaSetSpec"),
    ("apps/v1", "DaemonSet", "spec:DaemonSetSpec"),
    ("batch/v1", "Job", "spec:JobSpec"),
    ("batch/v1", "CronJob", "spec:CronJobSpec"),
    (
        "discovery.k8s.io/v1",
        "EndpointSlice",
        "addressType endpoints:[Endpoint] ports:[EndpointPort]",
    ),
    // What policies say below `metadata` is read by their own readers.
    ("networking.k8s.io/v1", "NetworkPolicy", "spec:*"),
    ("cilium.io/v2", "CiliumNetworkPolicy", "spec:* specs:*"),
    (
        "cilium.io/v2",
        "CiliumClusterwideNetworkPolicy",
        "spec:* specs:*",
    ),
    ("cilium.io/v2", "CiliumCIDRGroup", "spec:*"),
    (
        "policy.networking.k8s.io/v1alpha2",
        "ClusterNetworkPolicy",
        "spec:*",
    ),
];

/// Other kinds that clusters have; a word close to one of these is no slip.
pub(super) const OTHERS: &[&str] = &[
    "APIService",
    "ClusterRole",
    "ClusterRoleBinding",
    "ControllerRevision",
    "CustomResourceDefinition",
    "Event",
    "HorizontalPodAutoscaler",
    "Ingress",
    "IngressClass",
    "Lease",
    "LimitRange",
    "MutatingWebhookConfiguration",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "PodDisruptionBudget",
    "PodTemplate",
    "PriorityClass",
    "ReplicationController",
    "ResourceQuota",
    "Role",
    "RoleBinding",
    "RuntimeClass",
    "Secret",
    "ServiceCIDR",
    "StorageClass",
    "ValidatingWebhookConfiguration",
    "VolumeAttachment",
];

/// Types and their fields.
pub(super) const TYPES: &[(&str, &str)] = &[
    (
        "ObjectMeta",
        "annotations:{} creationTimestamp deletionGracePeriodSeconds deletionTimestamp finalizers generateName \
         generation labels:{} managedFields:* name namespace ownerReferences:[OwnerReference] resourceVersion \
         selfLink uid",
    ),
    (
        "OwnerReference",
        "apiVersion blockOwnerDeletion controller kind name uid",
    ),
    ("LocalObjectReference", "name"),
    (
        "ObjectReference",
        "apiVersion fieldPath kind name namespace resourceVersion uid",
    ),
    (
        "LabelSelector",
        "matchExpressions:[LabelSelectorRequirement] matchLabels:{}",
    ),
    ("LabelSelectorRequirement", "key operator values"),
    ("NamespaceSpec", "finalizers"),
    (
        "NodeSpec",
        "configSource:* externalID podCIDR podCIDRs providerID taints:[Taint] unschedulable",
    ),
    ("Taint", "effect key timeAdded value"),
    (
        "ServiceSpec",
        "allocateLoadBalancerNodePorts clusterIP clusterIPs externalIPs externalName externalTrafficPolicy \
         healthCheckNodePort internalTrafficPolicy ipFamilies ipFamilyPolicy loadBalancerClass loadBalancerIP \
         loadBalancerSourceRanges ports:[ServicePort] publishNotReadyAddresses selector:{} sessionAffinity \
         sessionAffinityConfig:* trafficDistribution type",
    ),
    (
        "ServicePort",
        "appProtocol name nodePort port protocol targetPort",
    ),
    (
        "EndpointSubset",
        "addresses:[EndpointAddress] notReadyAddresses:[EndpointAddress] ports:[EndpointPort]",
    ),
    (
        "EndpointAddress",
        "hostname ip nodeName targetRef:ObjectReference",
    ),
    (
        "Endpoint",
        "addresses conditions:EndpointConditions deprecatedTopology:{} hints:EndpointHints hostname nodeName \
         targetRef:ObjectReference zone",
    ),
    ("EndpointConditions", "ready serving terminating"),
    (
        "EndpointHints",
        "forNodes:[LocalObjectReference] forZones:[LocalObjectReference]",
    ),
    ("EndpointPort", "appProtocol name port protocol"),
    (
        "DeploymentSpec",
        "minReadySeconds paused progressDeadlineSeconds replicas revisionHistoryLimit selector:LabelSelector \
         strategy:UpdateStrategy template:PodTemplateSpec",
    ),
    (
        "StatefulSetSpec",
        "minReadySeconds ordinals:Ordinals persistentVolumeClaimRetentionPolicy:ClaimRetention podManagementPolicy \
         replicas revisionHistoryLimit selector:LabelSelector serviceName template:PodTemplateSpec \
         updateStrategy:UpdateStrategy volumeClaimTemplates:*",
    ),
    ("Ordinals", "start"),
    ("ClaimRetention", "whenDeleted whenScaled"),
    (
        "ReplicaSetSpec",
        "minReadySeconds replicas selector:LabelSelector template:PodTemplateSpec",
    ),
    (
        "DaemonSetSpec",
        "minReadySeconds revisionHistoryLimit selector:LabelSelector template:PodTemplateSpec \
         updateStrategy:UpdateStrategy",
    ),
    ("UpdateStrategy", "rollingUpdate:RollingUpdate type"),
    ("RollingUpdate", "maxSurge maxUnavailable partition"),
    (
        "JobSpec",
        "activeDeadlineSeconds backoffLimit backoffLimitPerIndex completionMode completions managedBy manualSelector \
         maxFailedIndexes parallelism podFailurePolicy:* podReplacementPolicy selector:LabelSelector successPolicy:* \
         suspend template:PodTemplateSpec ttlSecondsAfterFinished",
    ),
    (
        "CronJobSpec",
        "concurrencyPolicy failedJobsHistoryLimit jobTemplate:JobTemplateSpec schedule startingDeadlineSeconds \
         successfulJobsHistoryLimit suspend timeZone",
    ),
    ("JobTemplateSpec", "metadata:ObjectMeta spec:JobSpec"),
    ("PodTemplateSpec", "metadata:ObjectMeta spec:PodSpec"),
    (
        "PodSpec",
        "activeDeadlineSeconds affinity:Affinity automountServiceAccountToken containers:[Container] \
         dnsConfig:PodDNSConfig dnsPolicy enableServiceLinks ephemeralContainers:[Container] hostAliases:[HostAlias] \
         hostIPC hostNetwork hostPID hostUsers hostname hostnameOverride imagePullSecrets:[LocalObjectReference] \
         initContainers:[Container] nodeName nodeSelector:{} os:LocalObjectReference overhead:{} preemptionPolicy \
         priority priorityClassName readinessGates:[PodReadinessGate] resourceClaims:[PodResourceClaim] \
         resources:ResourceRequirements restartPolicy runtimeClassName schedulerName \
         schedulingGates:[LocalObjectReference] securityContext:PodSecurityContext serviceAccount serviceAccountName \
         setHostnameAsFQDN shareProcessNamespace subdomain terminationGracePeriodSeconds tolerations:[Toleration] \
         topologySpreadConstraints:[TopologySpreadConstraint] volumes:[Volume]",
    ),
    (
        "Affinity",
        "nodeAffinity:AffinityTerms podAffinity:AffinityTerms podAntiAffinity:AffinityTerms",
    ),
    (
        "AffinityTerms",
        "preferredDuringSchedulingIgnoredDuringExecution:* requiredDuringSchedulingIgnoredDuringExecution:*",
    ),
    ("PodDNSConfig", "nameservers options:[NameValue] searches"),
    ("NameValue", "name value"),
    ("HostAlias", "hostnames ip"),
    ("PodReadinessGate", "conditionType"),
    (
        "PodResourceClaim",
        "name resourceClaimName resourceClaimTemplateName source:*",
    ),
    ("Toleration", "effect key operator tolerationSeconds value"),
    (
        "TopologySpreadConstraint",
        "labelSelector:LabelSelector matchLabelKeys maxSkew minDomains nodeAffinityPolicy nodeTaintsPolicy \
         topologyKey whenUnsatisfiable",
    ),
    (
        "Volume",
        "awsElasticBlockStore:* azureDisk:* azureFile:* cephfs:* cinder:* configMap:* csi:* downwardAPI:* emptyDir:* \
         ephemeral:* fc:* flexVolume:* flocker:* gcePersistentDisk:* gitRepo:* glusterfs:* hostPath:* image:* iscsi:* \
         name nfs:* persistentVolumeClaim:* photonPersistentDisk:* portworxVolume:* projected:* quobyte:* rbd:* \
         scaleIO:* secret:* storageos:* vsphereVolume:*",
    ),
    // An ephemeral container has one field more.
    (
        "Container",
        "args command env:[EnvVar] envFrom:[EnvFromSource] image imagePullPolicy lifecycle:Lifecycle \
         livenessProbe:Probe name ports:[ContainerPort] readinessProbe:Probe resizePolicy:[ContainerResizePolicy] \
         resources:ResourceRequirements restartPolicy restartPolicyRules:[ContainerRestartRule] \
         securityContext:SecurityContext startupProbe:Probe stdin stdinOnce targetContainerName \
         terminationMessagePath terminationMessagePolicy tty volumeDevices:[VolumeDevice] volumeMounts:[VolumeMount] \
         workingDir",
    ),
    (
        "ContainerPort",
        "containerPort hostIP hostPort name protocol",
    ),
    ("ContainerResizePolicy", "resourceName restartPolicy"),
    ("ContainerRestartRule", "action exitCodes:*"),
    ("EnvVar", "name value valueFrom:EnvVarSource"),
    (
        "EnvVarSource",
        "configMapKeyRef:KeySelector fieldRef:FieldRef fileKeyRef:* resourceFieldRef:ResourceFieldRef \
         secretKeyRef:KeySelector",
    ),
    ("KeySelector", "key name optional"),
    ("FieldRef", "apiVersion fieldPath"),
    ("ResourceFieldRef", "containerName divisor resource"),
    (
        "EnvFromSource",
        "configMapRef:EnvSource prefix secretRef:EnvSource",
    ),
    ("EnvSource", "name optional"),
    (
        "Lifecycle",
        "postStart:LifecycleHandler preStop:LifecycleHandler stopSignal",
    ),
    (
        "LifecycleHandler",
        "exec:Exec httpGet:HttpGet sleep:Sleep tcpSocket:TcpSocket",
    ),
    ("Sleep", "seconds"),
    (
        "Probe",
        "exec:Exec failureThreshold grpc:Grpc httpGet:HttpGet initialDelaySeconds periodSeconds successThreshold \
         tcpSocket:TcpSocket terminationGracePeriodSeconds timeoutSeconds",
    ),
    ("Exec", "command"),
    ("Grpc", "port service"),
    ("HttpGet", "host httpHeaders:[NameValue] path port scheme"),
    ("TcpSocket", "host port"),
    (
        "ResourceRequirements",
        "claims:[ResourceClaim] limits:{} requests:{}",
    ),
    ("ResourceClaim", "name request"),
    (
        "SecurityContext",
        "allowPrivilegeEscalation appArmorProfile:Profile capabilities:Capabilities privileged procMount \
         readOnlyRootFilesystem runAsGroup runAsNonRoot runAsUser seLinuxOptions:SeLinuxOptions seccompProfile:Profile \
         windowsOptions:*",
    ),
    (
        "PodSecurityContext",
        "appArmorProfile:Profile fsGroup fsGroupChangePolicy runAsGroup runAsNonRoot runAsUser seLinuxChangePolicy \
         seLinuxOptions:SeLinuxOptions seccompProfile:Profile supplementalGroups supplementalGroupsPolicy \
         sysctls:[NameValue] windowsOptions:*",
    ),
    ("Profile", "localhostProfile type"),
    ("Capabilities", "add drop"),
    ("SeLinuxOptions", "level role type user"),
    ("VolumeDevice", "devicePath name"),
    (
        "VolumeMount",
        "mountPath mountPropagation name readOnly recursiveReadOnly subPath subPathExpr",
    ),
];
